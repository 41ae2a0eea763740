"""Finds the COCO files below a folder, the split of each, and the folder of its images: for `dataset=auto`.

Known are the layouts of COCO (annotations/instances_train2017.json, train2017), of Roboflow
(train/_annotations.coco.json beside the images), and one file with a folder of images beside it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from detpipe.datasets.folder_scan import is_hidden, suffix_of
from detpipe.datasets.source import Recognised, Split
from detpipe.datasets.voc_folder import SPLIT_FOLDERS, unwrapped
from detpipe.storage.input_file import InputFileError, open_input
from detpipe.storage.object_storage import is_remote
from detpipe.storage.stored_file import children, is_existing_folder, is_file, walk

_WINDOW = 1 << 20
"""Bytes at the start and at the end of a file that are searched for COCO's keys."""
_MOST_NAMES = 20
"""Images of a file that are searched to find their folder."""
_MOST_FILES = 20
"""JSON files in a folder. More of them are one for each image: no COCO file."""
_DEEPEST = 2
"""Folders between the root and a COCO file."""
_KEY = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.){1,4000}")')
_USUAL = re.compile(r"instances.*\.json|_annotations\.coco\.json", re.IGNORECASE)
_IMAGE_FOLDERS = ("images", "data", "imgs", "img", "JPEGImages")


def recognise_coco(root: Path) -> Recognised | None:
    """The COCO files of a folder, or the one file; None without one. Raises ValueError if two files are of one split.

    A single file without the name of a split is for training, with an automatic split. The validation file is the test
    file if there is no other.
    """
    if is_file(root):
        if suffix_of(root.name) != ".json" or not _is_coco(root):
            return None
        files = [root]
        root = root.parent
    else:
        root = unwrapped(root)
        there = _json_files(root)
        files = [path for path in there if _USUAL.fullmatch(path.name) and _is_coco(path)]
        files = files or [path for path in there if _is_coco(path)]
    if not files:
        return None
    splits: dict[Split | None, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of(path, root), []).append(path)
    unnamed = splits.pop(None, [])
    if not splits:
        splits, unnamed = {Split.train: unnamed}, []
    for split, paths in splits.items():
        if split is not None and len(paths) > 1:
            names = ", ".join(str(path) for path in paths[:4])
            raise ValueError(
                f"{root}: expected one COCO file for each split, got {len(paths)} that may be the {split.value} file "
                f"({names}); name them: dataset=coco dataset.train_json=FILE dataset.train_images=DIR, and the same "
                "for test"
            )
    if Split.test not in splits and Split.val in splits:
        splits[Split.test] = splits.pop(Split.val)
    settings: dict[str, object] = {}
    texts = []
    for split in Split:
        if split in splits:
            file = splits[split][0]
            images = _image_folder(file, root)
            settings |= {f"{split.value}_json": str(file), f"{split.value}_images": str(images)}
            texts.append(f"{_below(file, root)} ({split.value}, images in {_below(images, root)})")
    more = f", without {', '.join(_below(path, root) for path in unnamed[:3])}" if unnamed else ""
    return Recognised(settings, f"COCO: {', '.join(texts)}{more}")


def _json_files(root: Path) -> list[Path]:
    """The JSON files in a folder and few folders below it, sorted."""
    found: list[Path] = []
    for folder, inner, files in walk(root):
        depth = len(folder.relative_to(root).parts)
        inner[:] = [] if depth == _DEEPEST else [name for name in inner if not is_hidden(name)]
        names = [name for name in files if suffix_of(name) == ".json" and not is_hidden(name)]
        if len(names) > _MOST_FILES:
            names = [name for name in names if _USUAL.fullmatch(name)]
        found += [folder / name for name in names]
    return sorted(found)


def _is_coco(path: Path) -> bool:
    """Whether a file has COCO's keys. One with COCO's usual name that can't be read is one: reading it says why."""
    try:
        start, end = _windows(path)
    except (InputFileError, OSError):
        return _USUAL.fullmatch(path.name) is not None
    keys = {*_KEY.findall(start), *_KEY.findall(end)}
    is_object = start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    return is_object and b"categories" in keys and len(keys) >= 2


def _windows(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file."""
    with open_input(path, "a COCO JSON file") as file:
        start = file.read(_WINDOW)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(len(start), size - _WINDOW))
        return start, file.read(_WINDOW)


def _split_of(path: Path, root: Path) -> Split | None:
    """The split that the name of a file says, or else the name of a folder around it; None if none does."""
    for name in (path.stem, *reversed(path.relative_to(root).parts[:-1])):
        words = re.findall(r"[a-z]+", name.lower())
        split = next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), None)
        if split is not None or "trainval" in words:
            return split or Split.train
    return None


def _image_folder(path: Path, root: Path) -> Path:
    """The folder that has most of the file's first images; without any, the one that has the usual name."""
    folders = list(dict.fromkeys(_possible_folders(path, root)))
    try:
        start, end = _windows(path)
    except (InputFileError, OSError):
        return folders[0]
    names = _file_names(_FILE_NAME.findall(start) or _FILE_NAME.findall(end))
    for some in (names, [name.replace("\\", "/").rpartition("/")[2] for name in names]):
        counts = [sum(_is_file(folder, name) for name in some) for folder in folders]
        if any(counts):
            return folders[counts.index(max(counts))]
    return folders[0]


def _file_names(found: Sequence[bytes]) -> list[str]:
    names = []
    for one in found[:_MOST_NAMES]:
        try:
            names.append(str(json.loads(one)))
        except ValueError:  # also a UnicodeDecodeError: another encoding, or a part of a sign
            continue
    return names


def _possible_folders(path: Path, root: Path) -> Iterable[Path]:
    """The folders that may hold the images of a file, in the order of the search. The last one exists."""
    stem = path.stem.removeprefix("instances").strip("_-")
    split = _split_of(path, root)
    places = [root, *(root / name for name in _IMAGE_FOLDERS), path.parent, path.parent.parent]
    for place in places:
        inner = [one for one in children(place) if is_existing_folder(one)] if is_existing_folder(place) else []
        yield from (one for one in inner if one.name == stem)
        yield from (one for one in inner if split and SPLIT_FOLDERS.get(one.name.lower()) is split)
        yield from (one for one in inner if one.name in _IMAGE_FOLDERS)
    yield path.parent
    yield root


def _is_file(folder: Path, name: str) -> bool:
    if is_remote(folder / name) and not is_remote(folder):  # no file names an address in object storage
        return False
    try:
        return is_file(folder / name)
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _below(path: Path, root: Path) -> str:
    text = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return "the same folder" if text == "." else text
