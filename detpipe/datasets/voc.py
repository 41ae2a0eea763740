"""Reader and writers of PASCAL VOC folders: Annotations/*.xml, JPEGImages, ImageSets/Main.

VOC counts pixels from 1 and includes the last one. Only this file converts between this and the package's convention:
a box (xmin, ymin, xmax, ymax) in a file is (xmin - 1, ymin - 1, xmax, ymax) in the program.
"""

from __future__ import annotations

import functools
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from defusedxml.ElementTree import parse as parse_xml

from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.image_file import IMAGE_SUFFIXES
from detpipe.datasets.source import DatasetSource, Entry, RawObject, Split, read_number
from detpipe.datasets.voc_lists import DEFAULT_TEST, DEFAULT_TRAIN, Division, ImageLists, divide
from detpipe.storage.atomic import replaced, write_bytes
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId

logger = logging.getLogger(__name__)


class BrokenAnnotationError(ValueError):
    """A VOC annotation can't be read."""


@dataclass(frozen=True)
class VocAnnotation:
    """The content of one XML file. filename: its <filename>, or "". stated_size: (height, width) from <size>, or None.

    objects: boxes in the program's convention with sorted corners, not clipped. notes: corrections and oddities.
    """

    filename: str
    stated_size: tuple[int, int] | None
    objects: tuple[RawObject, ...]
    notes: tuple[Finding, ...]


@dataclass(kw_only=True)
class VocSource(DatasetSource):
    """A folder in VOC's layout, or a flat folder with images and XML files together."""

    root: str
    """Folder that contains Annotations and JPEGImages, for example VOCdevkit/VOC2007."""
    train: str = DEFAULT_TRAIN
    """Name of the list in ImageSets/Main for training."""
    val: str | None = None
    """Name of the list in ImageSets/Main for validation; null: no validation split."""
    test: str = DEFAULT_TEST
    """Name of the list in ImageSets/Main for testing."""
    split_seed: int = 0
    """Seed of the random split that is used if lists are missing."""
    test_share: float = 0.2
    """Share of test images in the random split, between 0 and 1; used if lists are missing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share: expected a share between 0 and 1, got {self.test_share}")

    def has(self, split: Split) -> bool:
        return split is not Split.val or self.val is not None

    def title(self, split: Split) -> str:
        return f"{Path(self.root).name} {split.value}"

    def entries(self, split: Split) -> list[Entry]:
        return [self._entry(name) for name in self._division.names.get(split, ())]

    def known_classes(self) -> list[str]:
        used = dict.fromkeys(name for names in self._division.names.values() for name in names)
        parsed = (self._annotations.get(name) for name in used)
        return sorted({one.name for xml in parsed if isinstance(xml, VocAnnotation) for one in xml.objects})

    def strays(self) -> list[Finding]:
        """Findings for images without XML that no list names, and for repeated list entries."""
        used = {name for names in self._division.names.values() for name in names}
        pictured = {path for name in used if (path := self._image_of(name)) is not None}
        found = [
            finding("missing_annotation", path, "image without XML; left out of training and testing")
            for name, path in sorted(self._folder.images_by_stem.items())
            if name not in used and name not in self._folder.annotations and path not in pictured
        ]
        for name in filter(None, (self.train, self.val, self.test)):
            lines = self._folder.lists.lines(name) or []
            n_repeated = len(lines) - len(set(lines))
            if n_repeated:
                detail = f"{n_repeated} repeated names in the list; each name is used once"
                found.append(finding("duplicate_list_entry", self._folder.lists.folder / f"{name}.txt", detail))
        return found

    @functools.cached_property
    def _folder(self) -> _Folder:
        return _Folder.scan(Path(self.root))

    @functools.cached_property
    def _division(self) -> Division:
        division = divide(
            self._folder.lists,
            sorted(self._folder.annotations),
            train=self.train,
            val=self.val,
            test=self.test,
            seed=self.split_seed,
            share=self.test_share,
        )
        logger.info("%s: %s", self.root, division.rule)
        return division

    @functools.cached_property
    def _annotations(self) -> dict[str, VocAnnotation | Finding]:
        """All annotations by the stem of their file, read once; a Finding for each that can't be read."""
        parsed: dict[str, VocAnnotation | Finding] = {}
        for name, path in self._folder.annotations.items():
            try:
                parsed[name] = read_voc_annotation(path)
            except BrokenAnnotationError as error:
                parsed[name] = finding("broken_annotation", path, str(error).removeprefix(f"{path}: "))
        return parsed

    def _image_of(self, name: str) -> Path | None:
        annotation = self._annotations.get(name)
        return self._folder.image(name, annotation.filename if isinstance(annotation, VocAnnotation) else "")

    def _entry(self, name: str) -> Entry:
        annotation, image = self._annotations.get(name), self._image_of(name)
        origin = self._folder.annotations.get(name, image or self._folder.lists.folder / name)
        if isinstance(annotation, Finding):
            return Entry(name, image, origin, fault=annotation)
        if annotation is None:
            kind = "list_entry_without_files" if image is None else "missing_annotation"
            what = "neither image nor XML for this name in a list" if image is None else "image without XML"
            return Entry(name, image, origin, fault=finding(kind, origin, what))
        notes = list(annotation.notes)
        if image is None:
            other = f", nor {annotation.filename!r}" if annotation.filename else ""
            fault = finding("missing_image", origin, f"no image {name} with a usual suffix{other}")
            return Entry(name, None, origin, annotation.objects, annotation.stated_size, fault, tuple(notes))
        named = PureWindowsPath(annotation.filename)
        if annotation.filename and name not in (named.stem, named.name):
            detail = f"its <filename> is {annotation.filename!r}, another name; the image used is {image.name}"
            notes.append(finding("filename_mismatch", origin, detail))
        return Entry(name, image, origin, annotation.objects, annotation.stated_size, None, tuple(notes))


@dataclass(frozen=True)
class _Folder:
    """The content of a VOC folder: XML files by stem, images by name and by stem, lists."""

    annotations: Mapping[str, Path]
    images_by_name: Mapping[str, Path]
    images_by_stem: Mapping[str, Path]
    lists: ImageLists

    @classmethod
    def scan(cls, root: Path) -> _Folder:
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: expected a VOC folder, got no such folder; set dataset.root")
        annotation_folder = root / "Annotations" if (root / "Annotations").is_dir() else root
        annotations = {p.stem: p for p in sorted(annotation_folder.iterdir()) if p.suffix.lower() == ".xml"}
        if not annotations:
            there = ", ".join(sorted(p.name for p in root.iterdir())[:6]) or "nothing"
            raise FileNotFoundError(
                f"{root}: expected a VOC folder with Annotations/*.xml and JPEGImages, got a folder with {there}; set "
                "dataset.root"
            )
        image_folder = next((root / n for n in ("JPEGImages", "images", "Images") if (root / n).is_dir()), root)
        images = [p for p in sorted(image_folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
        # If images differ only in the suffix, the most common suffix comes last, so that it stays in the dict.
        images.sort(key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower()), reverse=True)
        by_stem = {path.stem: path for path in images}
        lists = ImageLists(root / "ImageSets" / "Main", annotations.keys() | by_stem.keys())
        return cls(annotations, {path.name: path for path in images}, by_stem, lists)

    def image(self, name: str, filename: str) -> Path | None:
        """The image with the annotation's own name and any usual suffix, else the one in its <filename>.

        Renamed or copied files often keep an old <filename>. So it is used only if no image has the annotation's own
        name, or to choose between images that differ only in the suffix.
        """
        # <filename> may be a path of any operating system; only its last part is used.
        named = PureWindowsPath(filename)
        by_name, by_stem = self.images_by_name, self.images_by_stem
        own = (by_name.get(named.name) if named.stem == name else None) or by_stem.get(name)
        return own or by_name.get(named.name) or by_stem.get(named.stem) or by_stem.get(named.name)


def read_voc_annotation(path: Path) -> VocAnnotation:
    """Read one XML file. Only the name and bndbox of its objects are required.

    Corners in the wrong order are swapped, a coordinate of 0 is taken as 1 (VOC counts from 1), and equal corners (a
    click) give an empty box; each is noted. Raises BrokenAnnotationError, which names the file and what was expected.
    """
    try:
        root = parse_xml(path).getroot()
    # defusedxml raises ValueError on entities, expat on unknown encodings.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BrokenAnnotationError(
            f"{path}: expected a VOC annotation in XML, got an error on reading it: {error}"
        ) from error
    if root is None or root.tag != "annotation":
        raise BrokenAnnotationError(f"{path}: expected <annotation>, got {'nothing' if root is None else root.tag!r}")
    try:
        raw = [_parse_object(element) for element in root.findall("object")]
    except ValueError as error:
        raise BrokenAnnotationError(f"{path}: {error}") from error
    corners = [corner for _, _, corner in raw]
    notes = []
    swapped = sum(x1 > x2 or y1 > y2 for x1, y1, x2, y2 in corners)
    if swapped:
        notes.append(finding("swapped_corners", path, f"{swapped} boxes with xmin > xmax or ymin > ymax; swapped"))
    if any(0 <= value < 1 for corner in corners for value in corner):
        notes.append(finding("zero_based_boxes", path, "a coordinate is 0, but VOC counts from 1; taken as 1"))
    return VocAnnotation(
        filename=_text(root, "filename"),
        stated_size=_parse_size(root),
        objects=tuple(RawObject(name, _half_open(corner), difficult) for name, difficult, corner in raw),
        notes=tuple(notes),
    )


Corners = tuple[float, float, float, float]


def _parse_object(element: ElementTree.Element) -> tuple[str, bool, Corners]:
    """The name, the difficult flag, and (xmin, ymin, xmax, ymax) as in the file."""
    name = _text(element, "name")
    box = element.find("bndbox")
    if not name or box is None:
        raise ValueError(
            f"expected <name> and <bndbox> in each <object>, got one without {'<bndbox>' if name else '<name>'}"
        )
    xmin, ymin, xmax, ymax = (
        read_number(box.findtext(tag), f"object {name!r}, <{tag}>") for tag in ("xmin", "ymin", "xmax", "ymax")
    )
    return name, _text(element, "difficult").lower() in ("1", "true"), (xmin, ymin, xmax, ymax)


def _half_open(corners: Corners) -> Corners:
    """Convert VOC's inclusive corners, which count from 1, to a half-open box."""
    (xmin, xmax), (ymin, ymax) = sorted(corners[0::2]), sorted(corners[1::2])
    # In VOC's convention a click is a box of one pixel, but nobody means that, so it stays empty.
    first = 1 if xmin < xmax and ymin < ymax else 0
    return _take_one(xmin, first), _take_one(ymin, first), xmax, ymax


def _take_one(value: float, first: int) -> float:
    return max(0.0, value - first) if 0 <= value < 1 else value - first


def _parse_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) from <size>; None if it is missing or not numeric."""
    height, width = _text(root, "size/height"), _text(root, "size/width")
    try:
        return round(float(height)), round(float(width))
    except (ValueError, OverflowError):
        return None


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def write_voc_annotation(
    path: Path, filename: str, image_size: tuple[int, int], truth: GroundTruth, classes: Sequence[str]
) -> None:
    """Write the objects of one image as VOC XML. `read_voc_annotation` gives the same boxes.

    image_size: (height, width). classes: in label order. VOC has no crowds; they are written as difficult, which the
    metrics ignore as well. Raises ValueError for a box that is not wider and higher than one pixel, which VOC's
    convention can't express.
    """
    root = ElementTree.Element("annotation")
    _add(root, "filename", filename)
    size = _add(root, "size")
    for tag, pixels in (("width", image_size[1]), ("height", image_size[0]), ("depth", 3)):
        _add(size, tag, str(pixels))
    for box, label, ignored in zip(truth.boxes, truth.labels, truth.difficult | truth.crowd, strict=True):
        x1, y1, x2, y2 = (float(value) for value in box)
        if x2 - x1 <= 1 or y2 - y1 <= 1:
            raise ValueError(f"{path}: expected boxes wider and higher than 1 pixel, got {box.tolist()}; drop the box")
        one = _add(root, "object")
        _add(one, "name", classes[int(label) - 1])
        _add(one, "difficult", str(int(ignored)))
        corners = _add(one, "bndbox")
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _add(corners, tag, str(int(value)) if value.is_integer() else repr(value))
    ElementTree.indent(root, "\t")
    write_bytes(path, ElementTree.tostring(root, encoding="utf-8") + b"\n")


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = text
    return child


def write_voc_results(folder: Path, dataset: Dataset, detections: Mapping[ImageId, Detections]) -> None:
    """Write VOC's comp4_det_test_<class>.txt for each class: lines of id, score, xmin, ymin, xmax, ymax.

    detections: by image id; an image without an entry has no detections. A class without detections gets an empty file.
    Lines are in the order of the images, then by descending score. Raises ValueError for a class name that can't be
    part of a file name, and for an image that the data set doesn't have.
    """
    unknown = detections.keys() - {record.image_id for record in dataset.records}
    if unknown:
        raise ValueError(f"{dataset.name}: expected detections of its own images, got {sorted(map(str, unknown))[:3]}")
    for label, name in enumerate(dataset.classes, start=1):
        if "/" in name or "\\" in name or "\0" in name:
            raise ValueError(f"class {name!r}: expected a name that is valid in a file name; rename the class")
        with (
            replaced(folder / f"comp4_det_test_{name}.txt") as scratch,
            # The devkit opens images by these names, so the original bytes are kept.
            scratch.open("w", encoding="utf-8", errors="surrogateescape") as file,
        ):
            for record in dataset.records:
                found = detections.get(record.image_id)
                if found is None:
                    continue
                mine = found.labels == label
                for (x1, y1, x2, y2), score in zip(
                    found.boxes[mine].tolist(), found.scores[mine].tolist(), strict=True
                ):
                    file.write(f"{record.image_id} {score:.6g} {x1 + 1:.2f} {y1 + 1:.2f} {x2:.2f} {y2:.2f}\n")
