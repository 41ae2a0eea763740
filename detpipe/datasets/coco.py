"""Reader of COCO JSON files with their image folders."""

from __future__ import annotations

import functools
import logging
import reprlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from detpipe.datasets.coco_folder import recognise_coco
from detpipe.datasets.coco_ids import IdMatcher, number_of, plain_id
from detpipe.datasets.coco_object import NoBoxError, parse_object
from detpipe.datasets.entry import Entry
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.foreign_formats import foreign_hint
from detpipe.datasets.image_finder import ImageFinder, ImageNotFoundError, hash_name
from detpipe.datasets.source import Recognised, Split, StoredSplit
from detpipe.datasets.splits import DividedSource
from detpipe.storage.input_json import read_json
from detpipe.storage.stored_file import is_folder
from detpipe.structures import ImageId

logger = logging.getLogger(__name__)


class CocoFileError(ValueError):
    """A JSON file is not a COCO instances file."""


@dataclass(frozen=True)
class CocoFile:
    """The content of one COCO file.

    entries: its images. categories: from id to class name. annotated: whether the file has annotations at all.
    strays: findings for annotations of images that are not in the file. groups: categories that are not classes.
    """

    path: Path
    entries: tuple[Entry, ...]
    categories: Mapping[int, str]
    annotated: bool
    strays: tuple[Finding, ...]
    groups: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class CocoSource(DividedSource):
    """COCO JSON files, one per split, each with an image folder. The classes of all files are merged by name.

    With train_json and without test_json, a share of the training images is the test split (see `splits`).
    """

    PATHS: ClassVar[tuple[str, ...]] = (
        *(f"{split.value}_{kind}" for split in Split for kind in ("json", "images")),
        *DividedSource.PATHS,
    )

    train_json: str | None = None
    """COCO JSON file of the training images."""
    train_images: str | None = None
    """Folder of the training images; null: the folder of train_json."""
    val_json: str | None = None
    """COCO JSON file of the validation images."""
    val_images: str | None = None
    """Folder of the validation images; null: the folder of val_json."""
    test_json: str | None = None
    """COCO JSON file of the test images."""
    test_images: str | None = None
    """Folder of the test images; null: the folder of test_json."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in Split:
            file, folder = self._paths(split)
            if file is None and folder is not None:
                raise ValueError(
                    f"dataset.{split.value}_json: expected it with dataset.{split.value}_images; set it, too"
                )
        if not any(self.has(split) for split in Split):
            raise ValueError(
                "expected a COCO file; set dataset.train_json and dataset.train_images, or dataset.test_json and "
                "dataset.test_images"
            )

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        return recognise_coco(root)

    def has(self, split: Split) -> bool:
        return self._paths(self._home(split))[0] is not None

    def title(self, split: Split) -> str:
        file, _ = self._paths(self._home(split))
        return (
            f"{Path(file).parent.name}/{Path(file).name} {split.value}" if file is not None else f"COCO {split.value}"
        )

    def entries(self, split: Split) -> Sequence[Entry]:
        if self._is_divided and split in self._sides:
            return self._sides[split]
        return self._files[split].entries

    def annotated(self, split: Split) -> bool:
        return self._files[self._home(split)].annotated

    def named_folders(self) -> list[Path]:
        return [Path(folder) for _, folder in map(self._paths, Split) if folder is not None]

    def automatic_split(self) -> StoredSplit | None:
        if not self._is_divided:
            return None
        train, test = (tuple(sorted(map(self._hash_name, self._sides[split]))) for split in (Split.train, Split.test))
        return StoredSplit(f"of {self.train_json} {self.rule}", train, test)

    @property
    def _is_divided(self) -> bool:
        """Whether the training file is divided into training and test images."""
        return self.train_json is not None and self.test_json is None and self.test_share > 0

    def _home(self, split: Split) -> Split:
        """The split whose file has the images of `split`."""
        return Split.train if split is Split.test and self._is_divided else split

    @functools.cached_property
    def _sides(self) -> dict[Split, tuple[Entry, ...]]:
        """The images of the training file by split."""
        entries = self._files[Split.train].entries
        train, test = self.divide_by_name([self._hash_name(entry) for entry in entries])
        logger.info("%s: no test_json: of these images %s", self.train_json, self.rule)
        sides = {Split.train: train, Split.test: test}
        return {split: tuple(entries[number] for number in numbers) for split, numbers in sides.items()}

    def _hash_name(self, entry: Entry) -> str:
        """The name of an image for the automatic split: its path in the image folder."""
        folder = Path(self._paths(Split.train)[1] or "")
        if entry.image is None:
            return str(entry.image_id)
        is_below = entry.image.is_relative_to(folder)
        return hash_name(entry.image.relative_to(folder).as_posix() if is_below else entry.image.name)

    def strays(self) -> list[Finding]:
        return [one for file in self._files.values() for one in file.strays]

    def known_classes(self) -> list[str]:
        """All class names, also those without objects, ordered by the lowest id that any file gives them.

        Without groups of classes, which Roboflow adds as a category without objects.
        """
        files = self._files.values()
        pairs = sorted((number, name) for file in files for number, name in file.categories.items())
        classes = {name for file in files for name in file.categories.values() if name not in file.groups}
        return list(dict.fromkeys(name for _, name in pairs if name in classes))

    def category_ids(self, split: Split, names: Sequence[str]) -> list[int]:
        """The ids in the split's own file. A class that only other files have gets its id there, or a free id."""
        own = _ids_by_name(self._files[self._home(split)])
        others = {name: number for file in self._files.values() for name, number in _ids_by_name(file).items()}
        taken = set(own.values())
        numbers = []
        for name in names:
            number = own.get(name, others.get(name, 1))
            if name not in own:
                while number in taken:
                    number += 1
                taken.add(number)
            numbers.append(number)
        return numbers

    def _paths(self, split: Split) -> tuple[str | None, str | None]:
        file, folder = {
            Split.train: (self.train_json, self.train_images),
            Split.val: (self.val_json, self.val_images),
            Split.test: (self.test_json, self.test_images),
        }[split]
        return file, str(Path(file).parent) if folder is None and file is not None else folder

    @functools.cached_property
    def _files(self) -> dict[Split, CocoFile]:
        files = {}
        for split in Split:
            file, folder = self._paths(split)
            if file is not None and folder is not None:
                files[split] = read_coco_file(Path(file), Path(folder), outside=self.outside)
        return files


def _ids_by_name(file: CocoFile) -> dict[str, int]:
    """The id of each class name; where two ids share a name, the lower one."""
    return {name: number for number, name in sorted(file.categories.items(), reverse=True)}


def read_coco_file(path: Path, images: Path, *, outside: bool = False) -> CocoFile:
    """Read a COCO instances file. It needs `images` with id and file_name, and the categories of its annotations.

    outside: images outside of the folder `images` are read, too; see `ImageFinder`.
    An annotation without bbox gets the box of its segmentation; without both, it is left out, and the entry has a note.
    An image with another unusable annotation becomes an entry with a fault. Raises FileNotFoundError for a missing file
    or folder; InputFileError for a file that is not JSON, and CocoFileError for JSON that is not a COCO file, which
    name the file.
    """
    if not is_folder(images):
        raise FileNotFoundError(
            f"{images}: expected the folder of the images of {path.name}, got no such folder; to measure detections "
            "without images, leave the setting out"
        )
    try:
        content = read_json(path, "a COCO JSON file")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected a COCO JSON file, got no such file; check the path") from error
    try:
        if not isinstance(content, dict) or "images" not in content:
            raise CocoFileError(f'expected a COCO file, {{"images": [...], ...}}, got {_kind(content)}')
        categories = parse_categories(_records(content, "categories"))
        records = _parse_images(_records(content, "images"))
        annotations = _group_by_image(_records(content, "annotations"), records)
    except CocoFileError as error:
        raise CocoFileError(f"{path}: {error}{foreign_hint(path)}") from error
    finder = ImageFinder(images, beside=path.parent, outside=outside)
    entries = [
        _entry(image_id, image, annotations.pop(image_id, []), categories, path, finder)
        for image_id, image in records.items()
    ]
    if _is_label_studio(content):
        # It states sizes before EXIF's rotation, but its boxes are on the rotated image: the size says nothing on them.
        entries = [one if one.image is None else replace(one, stated_size=None) for one in entries]
    strays = [
        finding(
            "orphan_annotation",
            path,
            f"{len(orphans)} annotations of image {reprlib.repr(image_id)}, which is not in the file",
        )
        for image_id, orphans in annotations.items()
    ]
    groups = _groups(_records(content, "categories"), {one.name for entry in entries for one in entry.objects})
    if groups:
        logger.info("%s: categories that are groups of others and have no objects: %s", path, ", ".join(sorted(groups)))
    return CocoFile(path, tuple(entries), categories, "annotations" in content, tuple(strays), groups)


def _is_label_studio(content: Mapping[str, Any]) -> bool:
    info = content.get("info")
    return isinstance(info, Mapping) and info.get("contributor") == "Label Studio"


def _kind(value: object) -> str:
    keys = reprlib.repr(sorted(map(str, value))) if isinstance(value, dict) else ""
    return f"an object with {keys}" if keys else f"a {type(value).__name__}"


def _records(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under `key`; empty where the key is missing."""
    records = content.get(key) or []
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise CocoFileError(f'expected "{key}" to be a list of objects, got {_kind(records)} or other values in it')
    return records


def parse_categories(records: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The names of the classes by id. Raises CocoFileError."""
    categories: dict[int, str] = {}
    for index, record in enumerate(records):
        number, name = number_of(record.get("id")), record.get("name")
        if number is None or not isinstance(name, str) or not name.strip():
            raise CocoFileError(
                f"categories[{index}]: expected each category to have an integer id and a name, got "
                f"{reprlib.repr(record)}"
            )
        if number in categories:
            raise CocoFileError(f"categories[{index}].id: expected unique category ids, got {number} twice")
        categories[number] = name.strip()
    return categories


def _groups(records: Sequence[Mapping[str, Any]], used: Set[str]) -> frozenset[str]:
    """The categories without objects that are the supercategory of others and have none themselves.

    used: the names of categories with objects. If all categories are such, there are no groups.
    """
    above = {str(one["name"]).strip(): str(one.get("supercategory") or "none").strip() for one in records}
    parents = {parent for name, parent in above.items() if parent != name}
    return frozenset(name for name, parent in above.items() if name in parents - used and parent in ("none", name))


def _parse_images(records: Sequence[dict[str, Any]]) -> dict[ImageId, dict[str, Any]]:
    """The images by id, in the order of the file."""
    images: dict[ImageId, dict[str, Any]] = {}
    for index, record in enumerate(records):
        image_id = _image_id(record.get("id"), f"images[{index}].id")
        if image_id in images:
            raise CocoFileError(f"images[{index}].id: expected unique image ids, got {reprlib.repr(image_id)} twice")
        images[image_id] = record
    return images


def records_of_objects(content: Mapping[str, Any]) -> dict[ImageId, list[dict[str, Any]]]:
    """The annotation records of the objects of each image's `Entry`, in the same order.

    content: of a COCO file that `read_coco_file` has read. An image without objects has an empty list.
    """
    categories = parse_categories(_records(content, "categories"))
    images = _parse_images(_records(content, "images"))
    groups = _group_by_image(_records(content, "annotations"), images)
    return {one: [record for record in groups.get(one, []) if _has_box(record, categories)] for one in images}


def _has_box(record: Mapping[str, Any], categories: Mapping[int, str]) -> bool:
    try:
        parse_object(record, categories)
    except NoBoxError:
        return False
    except ValueError:  # a fault of the whole image, whose entry has no objects
        return True
    return True


def _image_id(value: object, what: str) -> ImageId:
    image_id = plain_id(value)
    if image_id is None:
        raise CocoFileError(f"{what}: expected an integer or a string, got {reprlib.repr(value)}")
    return image_id


def _group_by_image(
    records: Sequence[dict[str, Any]], images: Mapping[ImageId, Any]
) -> dict[ImageId, list[dict[str, Any]]]:
    """The annotations by the id of their image; if the file lacks the image, by their own image_id."""
    matcher = IdMatcher.of((image_id, ()) for image_id in images)
    groups: dict[ImageId, list[dict[str, Any]]] = {}
    for index, record in enumerate(records):
        own = _image_id(record.get("image_id"), f"annotations[{index}].image_id")
        image_id = matcher.find(own)
        groups.setdefault(own if image_id is None else image_id, []).append(record)
    return groups


def _entry(
    image_id: ImageId,
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    categories: Mapping[int, str],
    path: Path,
    images: ImageFinder,
) -> Entry:
    # LVIS has addresses in place of names.
    file, fault = _image_file(image_id, image.get("file_name") or image.get("coco_url"), path, images)
    place = file or path
    height, width = _side(image.get("height")), _side(image.get("width"))
    stated_size = (height, width) if height is not None and width is not None else None
    objects, notes = [], []
    for one in annotations:
        try:
            objects.append(parse_object(one, categories))
        except NoBoxError as error:
            notes.append(finding("object_without_box", place, f"{_name(one)}, {error} (in {path.name})"))
        except ValueError as error:
            fault = finding("broken_annotation", place, f"{_name(one)}: {error} (in {path.name})")
            return Entry(image_id, file, path, (), stated_size, fault)
    return Entry(image_id, file, path, tuple(objects), stated_size, fault, tuple(notes))


def _image_file(image_id: ImageId, name: object, path: Path, images: ImageFinder) -> tuple[Path | None, Finding | None]:
    """The file of an image, or the reason why it was not found. path: the COCO file. name: its file_name."""
    if not isinstance(name, str) or not name:
        return None, finding("missing_image", path, f"image {image_id!r} has no file_name")
    try:
        return images.find(name), None
    except ImageNotFoundError as error:
        return None, _unfound(error, images.folder / name, path)


def _side(value: object) -> int | None:
    number = number_of(value)
    return number if number is not None and abs(number) < 1 << 31 else None


def _name(annotation: Mapping[str, Any]) -> str:
    return f"annotation {reprlib.repr(annotation.get('id', ''))}"


def _unfound(error: ImageNotFoundError, file: Path, path: Path) -> Finding:
    """The finding for an image without a file. file: the path as named in the COCO file `path`."""
    if error.KIND != ImageNotFoundError.KIND:
        return finding(error.KIND, path, f"file_name {error}")
    return finding(error.KIND, file, f"no such file, named in {path.name}: {error}")
