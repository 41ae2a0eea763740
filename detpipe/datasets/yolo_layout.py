"""The layouts of YOLO data sets: which images are in which split, where their labels are, and the names of the classes.

Read are the YAML file of Ultralytics and Roboflow, Darknet's .data file (also of CVAT), and folders without either.
Labels are in `labels/` in place of the last `images/` (or `JPEGImages/`) of an image's path, else beside the image.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from detpipe.console import amount
from detpipe.datasets.folder_scan import is_hidden, is_image, suffix_of
from detpipe.datasets.source import Split
from detpipe.datasets.text_file import read_text
from detpipe.datasets.voc_folder import SPLIT_FOLDERS, unwrapped
from detpipe.datasets.yolo_text import parse_yolo_text
from detpipe.storage.input_file import open_input
from detpipe.storage.input_yaml import read_yaml
from detpipe.storage.object_storage import is_remote
from detpipe.storage.stored_file import children, exists, is_existing_folder, is_file, stored_size, walk

logger = logging.getLogger(__name__)

YAML_SUFFIXES = (".yaml", ".yml")
_SPLIT_KEYS = {"train": Split.train, "val": Split.val, "valid": Split.val, "validation": Split.val, "test": Split.test}
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
"""Files with the name of a class in each line."""
MOST_CLASSES = 100_000
_MOST_NAMES, _FEW_LABELS, _FIRST_LINE = 20_000, 10, 1 << 14
"""To recognise a data set: files whose names are looked at, label files that are read, and bytes of each."""


@dataclass(frozen=True)
class YoloLayout:
    """folder: the one that names in files are relative to. settings_file: the YAML or .data file, if there is one.

    names: of the classes, in the order of their numbers; None if no file has them. splits: the folders, lists of
    images and images of each split; None stands for images that a rule divides. keypoints: whether labels have them.
    class_file: the file that `names` are from.
    """

    folder: Path
    splits: Mapping[Split | None, Sequence[Path]]
    names: Sequence[str] | None = None
    settings_file: Path | None = None
    class_file: Path | None = None
    keypoints: bool = False

    @property
    def description(self) -> str:
        """How the data set is read, for the log."""
        where = "; ".join(
            f"{split.value if split else 'images'} from {', '.join(map(str, paths))}"
            for split, paths in self.splits.items()
        )
        classes = (
            "no names of classes"
            if self.names is None
            else f"{amount(len(self.names), 'classes')} of {self.class_file}"
        )
        return f"{where}; {classes}"


def find_layout(root: Path, *, outside: bool = False) -> YoloLayout:
    """The layout of a folder, or of the YAML or .data file `root`.

    outside: the file may name folders outside of its own. Raises FileNotFoundError for missing files and folders,
    ValueError for a file with other content.
    """
    if is_existing_folder(root):
        root = unwrapped(root)
        file = _yaml_in(root) or next((path for path in _files(root) if suffix_of(path.name) == ".data"), None)
        if file is None:
            return _of_folder(root)
        layout = _of_file(file, outside)
        # Some YAML files have names only.
        return layout if layout.splits else _of_folder(root, layout)
    if not exists(root):
        raise FileNotFoundError(f"{root}: expected a YOLO folder or its YAML file, got no such path; set dataset.root")
    if suffix_of(root.name) not in (*YAML_SUFFIXES, ".data"):
        raise ValueError(
            f"{root}: expected a folder or a .yaml file, got another file; set dataset.root to one of them"
        )
    layout = _of_file(root, outside)
    return layout if layout.splits else _of_folder(root.parent, layout)


def recognised_layout(root: Path) -> str | None:
    """What is found in a folder or file that is a YOLO data set, in words; None for anything else.

    Few files are read.
    """
    if is_file(root):
        is_own = (suffix_of(root.name) in YAML_SUFFIXES and _is_yolo_yaml(root)) or suffix_of(root.name) == ".data"
        return root.name if is_own else None
    if not is_existing_folder(root):
        return None
    root = unwrapped(root)
    file = next((path for path in _files(root) if suffix_of(path.name) in YAML_SUFFIXES and _is_yolo_yaml(path)), None)
    if file is not None:
        return file.name
    stems: set[str] = set()
    labels: list[Path] = []
    for folder, folders, names in walk(root):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        stems.update(Path(name).stem for name in names if is_image(name))
        labels += [folder / name for name in sorted(names) if suffix_of(name) == ".txt" and not is_hidden(name)]
        if len(stems) + len(labels) > _MOST_NAMES:
            break
    own = [path for path in labels if path.stem in stems][:_FEW_LABELS]
    label = next((path for path in own if _is_label(path)), None)
    return None if label is None else f"labels as {label.relative_to(root)}"


def _is_label(path: Path) -> bool:
    """Whether the first line of a text file is an object of YOLO."""
    try:
        with open_input(path, "a label file of YOLO") as file:
            first = file.read(_FIRST_LINE).decode("ascii").split("\n")[0]
        return bool(parse_yolo_text(first, None))
    except (OSError, ValueError):
        return False


def _files(folder: Path) -> list[Path]:
    return [path for path in children(folder) if not is_hidden(path.name) and is_file(path)]


def _yaml_in(folder: Path) -> Path | None:
    """The YAML file of a folder; None without one. Raises ValueError for several."""
    files = [path for path in _files(folder) if suffix_of(path.name) in YAML_SUFFIXES]
    usual = [path for path in files if path.stem.lower() in ("data", "dataset")]
    found = usual or [path for path in files if _is_yolo_yaml(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: expected one YAML file, got {names}; set dataset.root to the path of one of them")
    return found[0] if found else None


def _is_yolo_yaml(path: Path) -> bool:
    try:
        content = read_yaml(path, "a YAML file of a YOLO data set")
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and bool({"names", "nc", *_SPLIT_KEYS} & {str(key) for key in content})


def _of_file(file: Path, outside: bool) -> YoloLayout:
    content: Any
    if suffix_of(file.name) == ".data":
        content = _darknet_data(file)
    else:
        content = read_yaml(file, "the YAML file of a YOLO data set")
    if not isinstance(content, dict):
        raise ValueError(
            f"{file}: expected train, val and names of a YOLO data set, got {_short(content)}; write the keys"
        )
    base = _base(file, content.get("path"))
    splits: dict[Split | None, Sequence[Path]] = {}
    for key, split in _SPLIT_KEYS.items():
        value = content.get(key)
        if value is None or value == "" or split in splits:
            continue
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in texts):
            raise ValueError(f"{file}: {key}: expected a folder, a list file or a list of these, got {_short(value)}")
        places = {text: _place(file, base, text) for text in texts if text}
        missing = [text for text, place in places.items() if place is None]
        if missing and (split is Split.train or len(missing) < len(places)):
            remedy = "correct the path"
            if content.get("download"):
                remedy = f"the file's download is not run, so get the data set and put its folder into {file.parent}"
            raise FileNotFoundError(
                f"{file}: {key}: expected a folder or a list of images, got no such path {missing[0][:300]} below "
                f"{base}; {remedy}"
            )
        if missing:
            logger.warning("%s: %s: no such path %s; the split is left out", file, key, missing[0][:300])
            continue
        found = [place for place in places.values() if place is not None]
        for place in found:
            if not outside and not _is_below(place, file.parent):
                raise ValueError(
                    f"{file}: {key}: names {place}, which is outside of {file.parent}; to read it anyway, give "
                    "dataset.outside=true"
                )
        splits[split] = found
    names = _names(file, content)
    class_file = file
    if names is None and isinstance(content.get("names"), str):
        found_names = _place(file, base, content["names"])
        if found_names is None or not (outside or _is_below(found_names, file.parent)):
            raise FileNotFoundError(f"{file}: names: expected a file beside it, got {content['names'][:300]!r}")
        names, class_file = _read_names(found_names), found_names
    return YoloLayout(base, splits, names, file, class_file, content.get("kpt_shape") is not None)


def _darknet_data(file: Path) -> dict[str, str]:
    """The lines "key = value" of a .data file; results and weights are passed over."""
    lines = (line.partition("=") for line in read_text(file, "a .data file of Darknet").splitlines())
    return {key.strip(): value.strip() for key, equals, value in lines if equals}


def _base(file: Path, path: object) -> Path:
    """The folder of relative paths: `path` of the YAML file if there is such a folder, else the file's own.

    As for the folders in it, leading parts that do not exist here are dropped: ../datasets/coco8 is also coco8 beside
    the file.
    """
    if path is None or path == "":
        return file.parent
    if not isinstance(path, str):
        raise ValueError(f"{file}: path: expected a folder, got {_short(path)}")
    base = _place(file, file.parent, path)
    return base if base is not None and is_existing_folder(base) else file.parent


def _place(file: Path, base: Path, text: str) -> Path | None:
    """The path that a YAML file means: below its base, then without leading parts that do not exist here.

    Roboflow writes ../train/images for train/images, and other programs the paths of their own machine.
    """
    parts = [part for part in PureWindowsPath(text).parts if part != "."] if "\\" in text else list(Path(text).parts)
    for start in range(max(len(parts), 1)):  # "." has no parts
        tail = Path(*parts[start:])
        if start and tail.parts[0] == "..":
            continue
        for folder in dict.fromkeys((base, file.parent)):
            place = Path(os.path.normpath(folder / tail))
            # With fewer parts than written only inside: nobody has named these files of this machine.
            if _may_ask(place, file) and exists(place) and (not start or _is_below(place, folder)):
                return place
    return None


def _may_ask(place: Path, file: Path) -> bool:
    """Whether a place that a file names may be looked for. No file names another address in object storage."""
    return not is_remote(place) or (is_remote(file) and _is_below(place, file.parent))


def _is_below(path: Path, folder: Path) -> bool:
    """Whether the path, as it is written, leads into the folder. Its last folder may be a link, as the user's are."""
    return Path(os.path.normpath(path.absolute())).is_relative_to(os.path.normpath(folder.absolute()))


def _names(file: Path, content: Mapping[Any, Any]) -> list[str] | None:
    """The names of a YAML file in the order of their numbers; None without any."""
    value = content.get("names")
    if value is None:
        number = content.get("nc")
        if number is None:
            return None
        if type(number) is not int or not 0 < number <= MOST_CLASSES:
            raise ValueError(f"{file}: nc: expected the number of classes, got {_short(number)}")
        return [str(one) for one in range(number)]
    if isinstance(value, str):
        return None
    if isinstance(value, dict):
        try:
            numbers = {int(key): one for key, one in value.items()}
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: names: expected numbers from 0 before the names, got {_short(value)}") from error
        if len(numbers) != len(value) or (numbers and not 0 <= min(numbers) <= max(numbers) < MOST_CLASSES):
            raise ValueError(f"{file}: names: expected different numbers from 0, got {_short(sorted(numbers))}")
        # Numbers without a name keep their places.
        value = [numbers.get(number, str(number)) for number in range(max(numbers, default=-1) + 1)]
    if not isinstance(value, list):
        raise ValueError(f"{file}: names: expected a list of class names, got {_short(value)}")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, str | int | float) or not str(one).strip():
            raise ValueError(f'{file}: names: expected text, got {_short(one)}; put it in quotes, as "no"')
    return [str(one).strip() for one in value]


def _short(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:100]!r}"


def _read_names(file: Path) -> list[str]:
    lines = read_text(file, "a file of class names").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() or str(number) for number, line in enumerate(lines)]


def _of_folder(root: Path, settings: YoloLayout | None = None) -> YoloLayout:
    """The layout of a folder without splits in a YAML file: lists of images, folders named after splits, or neither."""
    lists: dict[Split | None, Sequence[Path]] = {}
    for path in _files(root):
        split = SPLIT_FOLDERS.get(path.stem.lower()) if suffix_of(path.name) == ".txt" else None
        if split is not None and _is_image_list(path):
            lists.setdefault(split, [path])
    inner = next((one for one in _folders(root) if one.name.lower() == "images"), None)
    divided = _split_folders(root) or (_split_folders(inner) if inner is not None else {})
    splits = lists or divided or {None: [inner if inner is not None and _has_image(inner) else root]}
    if settings is not None and settings.names is not None:
        return YoloLayout(root, splits, settings.names, settings.settings_file, settings.class_file, settings.keypoints)
    class_file = next(_name_files(root), None)
    return YoloLayout(root, splits, None if class_file is None else _read_names(class_file), None, class_file)


def _is_image_list(path: Path) -> bool:
    """Whether a text file names an image in its first line with text."""
    if not stored_size(path):
        return False
    lines = (line.strip() for line in read_text(path, "a list of images").splitlines())
    return is_image(next(filter(None, lines), ""))


def _split_folders(folder: Path) -> dict[Split | None, Sequence[Path]]:
    """The subfolders with images that are named after a split; `images` in it if there is such a folder."""
    found: dict[Split | None, Sequence[Path]] = {}
    for one in _folders(folder):
        split = SPLIT_FOLDERS.get(one.name.lower())
        if split is not None and _has_image(one):
            found.setdefault(split, [next((sub for sub in _folders(one) if sub.name.lower() == "images"), one)])
    return found


def _folders(folder: Path) -> list[Path]:
    return [path for path in children(folder) if is_existing_folder(path) and not is_hidden(path.name)]


def _has_image(folder: Path) -> bool:
    return any(is_image(name) for _, _, names in walk(folder) for name in names if not is_hidden(name))


def _name_files(root: Path) -> Iterator[Path]:
    """The files of class names in the folder, in the folders of labels, and two folders below."""
    folders = [root, *_folders(root)]
    folders += [one for folder in folders[1:] for one in _folders(folder)]
    for folder in folders:
        for name in _NAME_FILES:
            if is_file(folder / name) and stored_size(folder / name):
                yield folder / name
