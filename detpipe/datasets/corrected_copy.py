"""Writes a corrected copy of a data set in its own format. The original is only read.

Annotations are new files; images are hard links where the file system allows it, else copies. Files that are not part
of the data set are left out: masks, caches, other folders.
"""

from __future__ import annotations

import contextlib
import enum
import glob
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detpipe.datasets.coco import CocoSource
from detpipe.datasets.coco_edit import edited_coco_file
from detpipe.datasets.demo import DemoSource
from detpipe.datasets.folder_scan import is_hidden, is_image, suffix_of, without_suffix
from detpipe.datasets.formats import format_word
from detpipe.datasets.image_finder import normalised
from detpipe.datasets.object_edits import NewImage, ObjectEdit, edited_objects
from detpipe.datasets.open_images import OpenImagesSource
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.table_source import TableSource
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_class_lists import class_flag, with_flags
from detpipe.datasets.voc_edit import edited_voc_annotation
from detpipe.datasets.voc_folder import VocFolder, labels_of
from detpipe.datasets.voc_lists import DEFAULT_TRAIN
from detpipe.datasets.voc_xml import LARGEST_XML, parse_voc_annotation, write_voc_annotation
from detpipe.datasets.yolo import YoloSource
from detpipe.progress import counted
from detpipe.storage.input_file import read_input
from detpipe.storage.object_storage import is_remote
from detpipe.storage.stored_file import (
    children,
    container_of,
    is_existing_folder,
    is_file,
    open_stored,
    stored_size,
    walk,
)
from detpipe.structures import GroundTruth, ImageId

Edits = Mapping[tuple[Path, ImageId], Sequence[ObjectEdit]]
"""The edits of each image, by `Entry.origin` and `Entry.image_id`."""


class CopiedImages(enum.Enum):
    """How images get into a copy of a data set."""

    link = "link"
    """Hard links: a second name of the same file, which takes no space. Copies where the file system has no links."""
    copy = "copy"
    """Copies."""


def write_corrected_copy(
    source: DatasetSource, out: Path, edits: Edits, images: CopiedImages, new_images: Sequence[NewImage] = ()
) -> DatasetSource:
    """Write the data set with the edits into the folder `out`. Returns the source of the copy.

    Without edits, the copy has the same annotation files to the byte. Splits stay, whether they are lists, files or a
    hash of the names. new_images: they join the training images, or, with a hash, go where it says. Raises ValueError
    for a format without annotations, and for a box that the format can't express; OSErrors of the file system.
    """
    source = annotated_source(source)
    if isinstance(source, VocSource):
        return _copy_voc(source, out, edits, images, new_images)
    if isinstance(source, YoloSource):
        return _copy_yolo(source, out, edits, images, new_images)
    if isinstance(source, TableSource):
        return _copy_tables(source, out, edits, images, new_images)
    return _copy_coco(source, out, edits, images, new_images)


def annotated_source(source: DatasetSource) -> VocSource | CocoSource | YoloSource | TableSource:
    """The source of the files with the boxes. Raises ValueError for a format without annotations, and for one of which
    no copies are written."""
    if isinstance(source, DemoSource):
        return source.as_voc()
    if isinstance(source, VocSource | CocoSource | YoloSource | TableSource):
        return source
    word = format_word(type(source)) or type(source).__name__
    raise ValueError(
        "dataset: expected a data set of which corrected copies are written (voc, coco, yolo, csv, openimages "
        "or demo), got "
        f"{word}; name the data set of the corrections, or convert it with `detpipe convert`"
    )


def source_folders(source: DatasetSource) -> list[Path]:
    """The folders that hold the files of a data set. No copy may be written into them."""
    source = annotated_source(source)
    if isinstance(source, VocSource):
        return [*source.roots, *source.named_folders()]
    if isinstance(source, YoloSource):
        return source.named_folders()
    if isinstance(source, TableSource):
        root = Path(source.root)
        inside = [folder for _, file, finder in source.files for folder in (file.parent, finder.folder)]
        return [root, *inside] if root.is_dir() else inside
    return [folder for file, images in _coco_paths(source).values() for folder in (file.parent, images)]


def _copy_voc(
    source: VocSource, out: Path, edits: Edits, images: CopiedImages, new_images: Sequence[NewImage]
) -> VocSource:
    labels = dict(zip(source.roots, labels_of(source.roots), strict=True))
    by_file = {origin: some for (origin, _), some in edits.items()}
    targets: dict[Path, Path] = {}
    for folder in source.folders:
        target = out / labels[folder.root]
        for path in folder.xml_files.values():
            own = by_file.get(path)
            if own:
                data = read_input(path, "a VOC annotation in XML", LARGEST_XML)
                _write(target / path.relative_to(folder.root), edited_voc_annotation(data, path, own, source.encoding))
            else:
                _copy_file(path, target / path.relative_to(folder.root))
        targets |= {path: target / path.relative_to(folder.root) for path in folder.finder.scan.images}
    for root in source.roots:
        for path in _list_files(root):
            _copy_file(path, out / labels[root] / path.relative_to(root))
    targets |= _outside_images(source, out, labels, targets)
    if new_images:
        targets |= _add_to_voc(source, out, labels, new_images)
    _put_images(targets, images)
    for folder in source.folders:
        _correct_class_lists(folder, out / labels[folder.root], by_file.keys(), source.encoding)
    roots = [str(out / labels[root]) for root in source.roots]
    return replace(source, root=roots if isinstance(source.root, list) else roots[0])


def _add_to_voc(
    source: VocSource, out: Path, labels: Mapping[Path, str], new_images: Sequence[NewImage]
) -> dict[Path, Path]:
    """Write the annotations of new images, and name them in the list of training images, if there is one.

    Returns the place of each image file.
    """
    folder = next(one for one in source.folders if one.split in (None, Split.train))
    target = out / labels[folder.root]
    annotations = target / (folder.annotations or folder.root / "Annotations").relative_to(folder.root)
    lists = folder.lists(set())
    names = dict.fromkeys((source.train, *(("train",) if source.train == DEFAULT_TRAIN else ())))
    used = next((name for name in names if lists.has(name)), None)
    listed = None if used is None else lists.file(used)
    places = {}
    for one in new_images:
        objects = edited_objects((), one.objects)
        classes = list(dict.fromkeys(each.name for each in objects))
        truth = GroundTruth.from_boxes(
            [each.box for each in objects], [classes.index(each.name) + 1 for each in objects]
        )
        file_name = f"{one.name}{one.path.suffix}"
        write_voc_annotation(annotations / f"{one.name}.xml", file_name, one.image_size, truth, classes)
        places[one.path] = target / folder.images.relative_to(folder.root) / file_name
        if listed is not None:
            _append(target / listed.relative_to(folder.root), one.name)
        elif used is not None:
            for file in sorted((target / "ImageSets").rglob(f"*_{used}.txt")):
                flag = class_flag(objects, file.stem.removesuffix(f"_{used}"))
                _append(file, f"{one.name} {flag:2}")
    return places


def _append(file: Path, line: str) -> None:
    """Add a line to a list, which may lack a line break at its end."""
    data = read_input(file, "a list of images") if file.stat().st_size else b""
    _write(file, data + (b"" if data.endswith(b"\n") or not data else b"\n") + line.encode() + b"\n")


def _list_files(root: Path) -> Iterator[Path]:
    """The visible files in ImageSets, and the text files in the root."""
    inside = sorted(folder / name for folder, _, names in walk(root / "ImageSets") for name in names)
    texts = [path for path in children(root) if suffix_of(path.name) == ".txt"]
    yield from (path for path in (*inside, *texts) if is_file(path) and not is_hidden(path.name))


def _outside_images(
    source: VocSource, out: Path, labels: Mapping[Path, str], known: Mapping[Path, Path]
) -> dict[Path, Path]:
    """From images that no folder of images has to their files in the copy, which have the names of the XML files."""
    homes = {path: (folder, folder.paths[name]) for folder in source.folders for name, path in folder.xml_files.items()}
    found = {}
    for split in Split:
        for entry in source.entries(split) if source.has(split) else ():
            if entry.image is not None and entry.image not in known and entry.origin in homes:
                folder, name = homes[entry.origin]
                place = out / labels[folder.root] / folder.images.relative_to(folder.root)
                found[entry.image] = place / f"{name}{entry.image.suffix}"
    return found


def _correct_class_lists(folder: VocFolder, target: Path, changed: Iterable[Path], encoding: str | None) -> None:
    """Change the flags of the changed images in the lists of one class. changed: XML files, also of other folders."""
    names = {path: name for name, path in folder.xml_files.items()}
    lists = target / "ImageSets" / "Main"
    for path in changed:
        if path not in names or not lists.is_dir():
            continue
        before, after = (
            parse_voc_annotation(read_input(file, "a VOC annotation in XML", LARGEST_XML), file, encoding).objects
            for file in (path, target / path.relative_to(folder.root))
        )
        for class_name in {one.name for one in (*before, *after)}:
            flag = class_flag(after, class_name)
            if flag != class_flag(before, class_name):
                flags = {names[path]: flag, folder.paths[names[path]]: flag}
                for file in sorted(lists.glob(f"{glob.escape(class_name)}_*.txt")):
                    _write(file, with_flags(read_input(file, "a list of images"), flags))


def _coco_paths(source: CocoSource) -> dict[Split, tuple[Path, Path]]:
    """The file and the folder of images of each split that has its own."""
    files = {Split.train: source.train_json, Split.val: source.val_json, Split.test: source.test_json}
    folders = {Split.train: source.train_images, Split.val: source.val_images, Split.test: source.test_images}
    return {
        split: (Path(file), Path(folders[split] or Path(file).parent))
        for split, file in files.items()
        if file is not None
    }


def _copy_coco(
    source: CocoSource, out: Path, edits: Edits, images: CopiedImages, new_images: Sequence[NewImage]
) -> CocoSource:
    paths = _coco_paths(source)
    folders = [one.absolute() for file, folder in paths.values() for one in (file.parent, folder)]
    top = Path(os.path.commonpath(folders))
    settings: dict[str, Any] = {}
    for split, (file, folder) in paths.items():
        settings[f"{split.value}_json"] = str(out / file.absolute().relative_to(top))
        settings[f"{split.value}_images"] = str(out / folder.absolute().relative_to(top))
        Path(settings[f"{split.value}_images"]).mkdir(parents=True, exist_ok=True)  # also without images
        own = {image_id: some for (origin, image_id), some in edits.items() if origin == file}
        new = new_images if split is Split.train else ()
        meant = [edit for some in own.values() for edit in some] + [edit for one in new for edit in one.objects]
        names = list(dict.fromkeys(edit.name for edit in meant if edit.name is not None))
        numbers = dict(zip(names, source.category_ids(split, names), strict=True))
        data = edited_coco_file(read_input(file, "a COCO JSON file"), file, own, numbers, new)
        _write(Path(settings[f"{split.value}_json"]), data)
    homes = {file: folder.absolute() for file, folder in paths.values()}
    targets: dict[Path, Path] = {}
    for split in Split:
        for entry in source.entries(split) if source.has(split) else ():
            if entry.image is not None:
                image, folder = entry.image.absolute(), homes[entry.origin]
                # An image outside is found by its last name.
                place = image.relative_to(top) if image.is_relative_to(top) else folder.relative_to(top) / image.name
                targets[entry.image] = out / place
    for one in new_images:
        targets[one.path] = Path(settings["train_images"]) / f"{one.name}{one.path.suffix}"
    _put_images(targets, images)
    return replace(source, **settings)


def _copy_yolo(
    source: YoloSource, out: Path, edits: Edits, images: CopiedImages, new_images: Sequence[NewImage]
) -> YoloSource:
    layout = source.layout
    top = (layout.settings_file.parent if layout.settings_file is not None else layout.folder).absolute()

    def place(path: Path) -> Path:
        path = Path(os.path.normpath(path.absolute()))
        if not path.is_relative_to(top):
            raise ValueError(
                f"{path}: expected all files of the data set in {top}; convert it with `detpipe convert` first"
            )
        return out / path.relative_to(top)

    files = [path for paths in layout.splits.values() for path in paths if is_file(path) and not is_image(path.name)]
    for file in dict.fromkeys(filter(None, (layout.settings_file, layout.class_file, *files))):
        data = read_input(file, "a list of images") if stored_size(file) else b""
        _write(place(file), _without_folder(data, os.fsencode(top)))
    targets: dict[Path, Path] = {}
    for split in Split:
        for entry in source.entries(split) if source.has(split) else ():
            if entry.image is None:
                continue
            targets[entry.image] = place(entry.image)
            own = edits.get((entry.origin, entry.image_id))
            if own:
                _write(place(entry.origin), source.edited_label(entry, own).encode())
            else:
                _copy_file(entry.origin, place(entry.origin))
    for one in new_images:
        image, label, listed = source.place_of_new(one)
        targets[one.path] = place(image)
        _write(place(label), source.new_label(one).encode())
        if listed is not None:
            relative = os.path.relpath(image.absolute(), listed.parent.absolute())
            _append(place(listed), f"./{relative}")
    _put_images(targets, images)
    root = Path(source.root)
    return replace(source, root=str(out if is_existing_folder(root) else place(root)))


def _copy_tables(
    source: TableSource, out: Path, edits: Edits, images: CopiedImages, new_images: Sequence[NewImage]
) -> TableSource:
    names = source.descriptions if isinstance(source, OpenImagesSource) else None
    folders = [*source_folders(source), *([] if names is None else [names.parent])]
    top = Path(os.path.commonpath([one.absolute() for one in folders]))

    def place(path: Path) -> Path:
        return out / path.absolute().relative_to(top)

    targets: dict[Path, Path] = {}
    own: dict[Path, dict[Path, list[ObjectEdit]]] = {}
    for split in Split:
        for entry in source.entries(split) if source.has(split) else ():
            if entry.image is not None:
                inside = entry.image.absolute().is_relative_to(top)
                targets[entry.image] = place(entry.image) if inside else place(entry.origin.parent) / entry.image.name
                of_file = own.setdefault(entry.origin, {})
                of_file.setdefault(entry.image, []).extend(edits.get((entry.origin, entry.image_id), ()))
    train = next(((file, finder) for split, file, finder in source.files if split in (None, Split.train)), None)
    for _, file, finder in source.files:
        new = new_images if train is not None and file == train[0] else ()
        _write(place(file), source.edited_file(file, finder, own.get(file, {}), new))
        place(finder.folder).mkdir(parents=True, exist_ok=True)  # also without images
    if train is None and new_images:
        raise ValueError("expected a file of training images for the new images, got none")
    if names is not None:
        _copy_file(names, place(names))
    for one in new_images:
        assert train is not None
        targets[one.path] = place(train[1].folder) / f"{one.name}{one.path.suffix}"
    _put_images(targets, images)
    given = {name: getattr(source, name) for name in COPIED_PATHS if getattr(source, name, None) is not None}
    settings: dict[str, Any] = {name: str(place(Path(value))) for name, value in given.items()}
    return replace(source, **settings)


COPIED_PATHS = ("root", "val_file", "test_file", "images_root", "names_file")
"""The settings of a source of tables whose files are in its copy."""


def _without_folder(data: bytes, folder: bytes) -> bytes:
    """A YAML file or list with paths relative to the folder: absolute ones would lead back to the original."""
    data = re.sub(rb"(?m)^(path:\s*[\"']?)" + re.escape(folder) + rb"/?([\"']?[ \t\r]*)$", rb"\1.\2", data)
    return data.replace(folder + b"/", b"")


def free_names(source: DatasetSource) -> Callable[[str], str]:
    """A function from the path of a new image to a name without suffix that no image of the data set has.

    It remembers the names that it has given.
    """
    source = annotated_source(source)
    paths = [entry.image for split in Split if source.has(split) for entry in source.entries(split) if entry.image]
    taken = {normalised(path.stem) for path in paths}
    if isinstance(source, VocSource):
        taken |= {normalised(path.stem) for folder in source.folders for path in folder.xml_files.values()}

    def free(path: str) -> str:
        parts = without_suffix(path).split("/")
        joined = "_".join(parts)
        for name in itertools.chain((parts[-1], joined), (f"{joined}_{number}" for number in itertools.count(2))):
            if normalised(name) not in taken:
                taken.add(normalised(name))
                return name
        raise AssertionError  # count has no end

    return free


def _put_images(targets: Mapping[Path, Path], images: CopiedImages) -> None:
    """Put images into the copy. targets: from each image to its place."""
    with counted("images", total=len(targets), unit="images") as count:
        for path, target in targets.items():
            place_image(path, target, images)
            count.advance()


def place_image(path: Path, target: Path, images: CopiedImages) -> None:
    """Link or copy one image. Its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if images is CopiedImages.copy or not _linked(path, target):
        _copy_file(path, target)


def _linked(path: Path, target: Path) -> bool:
    """Whether a hard link could be made: not on another disk, and not on every file system."""
    with contextlib.suppress(OSError):
        os.link(os.path.realpath(path), target)
        return True
    return False


def _copy_file(path: Path, target: Path) -> None:
    """Copy a file, also of object storage, or a member of a tar as it is. Anything else is left out, and so is a file
    that is gone."""
    if not is_remote(path) and path.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    elif is_file(path) or container_of(path) is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_stored(path, "a file to copy") as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
