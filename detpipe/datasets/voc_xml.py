"""VOC's files: annotations in XML, read and written, and result files.

VOC counts pixels from 1 and includes the last one. Only this file converts between this and the package's convention:
a box (xmin, ymin, xmax, ymax) in a file is (xmin - 1, ymin - 1, xmax, ymax) in the program.
"""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring as parse_xml

from detpipe.datasets.entry import RawObject, read_number
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.shapes import around_rotated
from detpipe.datasets.text_file import decoded, known_encoding, marked_encoding
from detpipe.storage.atomic import replaced, write_bytes
from detpipe.storage.input_file import read_input
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId

LARGEST_XML = 8 << 20
"""Bytes of the largest annotation that is read: 30,000 objects, or 200,000 points of outlines."""
_DECLARED = re.compile(r"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["'][^>]*\?>""")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_LONGEST_DECLARATION = 1000
_LONGEST_NAME, _LONGEST_NUMBER, _LONGEST_PATH = 1000, 100, 4096
"""Limits on the characters of a class name, a number and a <filename>."""
ROTATION = "rotation"
"""The <name> of the <attribute> by which CVAT says that a box is rotated."""
_CONTROL = re.compile("[\\x00-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


class BrokenAnnotationError(ValueError):
    """A VOC annotation can't be read."""


@dataclass(frozen=True)
class VocAnnotation:
    """The content of one XML file. filename: its <filename>, or "". stated_size: (height, width) from <size>, or None.

    objects: boxes in the program's convention with sorted corners, not clipped. notes: corrections and oddities.
    places: the index of each object among the <object> tags of the file, some of which are not objects.
    """

    filename: str
    stated_size: tuple[int, int] | None
    objects: tuple[RawObject, ...]
    notes: tuple[Finding, ...]
    places: tuple[int, ...]


def read_voc_annotation(path: Path, encoding: str | None = None) -> VocAnnotation:
    """Read one XML file. Only the name of its objects and a box or an outline are required.

    encoding: of a file that is not in UTF-8 and does not declare its encoding rightly. An object with a <polygon>, with
    points, or with a <robndbox> in place of <bndbox> has the box around it, and so has a box that CVAT rotated. An
    object without any of them is left out, corners in the wrong order are swapped, a coordinate of 0 is taken as 1 (VOC
    counts from 1), and equal corners (a click) give an empty box; each is noted. Raises BrokenAnnotationError, which
    names the file and what was expected, and OSErrors of the file system.
    """
    try:
        data = read_input(path, "a VOC annotation in XML", LARGEST_XML)
    except ValueError as error:
        raise BrokenAnnotationError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    return parse_voc_annotation(data, path, encoding)


def parse_voc_annotation(data: bytes, path: Path, encoding: str | None = None) -> VocAnnotation:
    """The content of an XML file that was read: as `read_voc_annotation`. path: for messages."""
    root, note = _parsed_root(data, path, encoding)
    # labelme keeps objects that were deleted.
    elements = [(place, one) for place, one in enumerate(root.findall("object")) if _text(one, "deleted") != "1"]
    try:
        raw = [(place, *_parse_object(element)) for place, element in elements]
    except ValueError as error:
        raise BrokenAnnotationError(f"{path}: {error}") from error
    notes = [] if note is None else [finding("other_encoding", path, note)]
    boxless = Counter(name for _, name, _, corner in raw if corner is None)
    if boxless:
        lacking = ", ".join(
            f"object {name!r} lacks <bndbox>" + (f" ({count} times)" if count > 1 else "")
            for name, count in list(boxless.items())[:5]
        )
        notes.append(finding("object_without_box", path, f"{lacking}; left out"))
    boxed = [(place, name, difficult, corner) for place, name, difficult, corner in raw if corner is not None]
    corners = [corner for _, _, _, corner in boxed]
    swapped = sum(x1 > x2 or y1 > y2 for x1, y1, x2, y2 in corners)
    if swapped:
        notes.append(finding("swapped_corners", path, f"{swapped} boxes with xmin > xmax or ymin > ymax; swapped"))
    if any(0 <= value < 1 for corner in corners for value in corner):
        notes.append(finding("zero_based_boxes", path, "a coordinate is 0, but VOC counts from 1; taken as 1"))
    return VocAnnotation(
        filename=filename if len(filename := _text(root, "filename")) <= _LONGEST_PATH else "",
        stated_size=_parse_size(root),
        objects=tuple(RawObject(name, box_of_corners(corner), difficult) for _, name, difficult, corner in boxed),
        notes=tuple(notes),
        places=tuple(place for place, _, _, _ in boxed),
    )


def _parsed_root(data: bytes, path: Path, encoding: str | None) -> tuple[ElementTree.Element, str | None]:
    """The root of an annotation, and a note on its encoding. Raises BrokenAnnotationError."""
    try:
        xml = decode_xml(data, encoding)
        root: ElementTree.Element = parse_xml(xml.text)
    except DefusedXmlException as error:
        raise BrokenAnnotationError(
            f"{path}: expected a VOC annotation in XML, got one that defines entities, which may be an attack; remove "
            "its <!DOCTYPE ...>"
        ) from error
    except ElementTree.ParseError as error:
        raise BrokenAnnotationError(
            f"{path}: expected a VOC annotation in XML, got an error on reading it: {error}"
        ) from error
    except (ValueError, LookupError) as error:
        raise BrokenAnnotationError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    if root.tag != "annotation":
        raise BrokenAnnotationError(f"{path}: expected <annotation>, got {str(root.tag)[:100]!r}")
    return root, xml.note


@dataclass(frozen=True)
class DecodedXml:
    """The text of an XML file.

    declaration: <?xml ...?>, or "". text: what follows. codec: Python's name of the encoding. note: if it is not the
    one that the file declares. is_certain: whether the codec is known for all bytes; else only for ASCII.
    """

    declaration: str
    text: str
    codec: str
    note: str | None = None
    is_certain: bool = True


def decode_xml(data: bytes, encoding: str | None) -> DecodedXml:
    """Decode an XML file. encoding: of a file that is not in UTF-8 and does not declare its encoding rightly.

    Expat knows no encoding with several bytes per sign but UTF-8 and UTF-16, so the text is decoded here. Raises
    ValueError if the encoding is not known and the text needs it.
    """
    declared = _DECLARED.match(data[:_LONGEST_DECLARATION].decode("latin-1"))
    marked = marked_encoding(data)
    names = [marked, declared[1] if declared else None, "utf-8", encoding]
    for name in dict.fromkeys(filter(None, names)):
        # In UTF-16 each sign has two bytes: without a mark or "<\0" at the start it is not UTF-16.
        if name.lower().replace("_", "-").startswith(("utf-16", "utf-32", "ucs")) and name != marked:
            continue
        text = decoded(data, name)
        if text is not None:
            expected = marked or (declared[1] if declared else "utf-8")
            is_other = known_encoding(name) != known_encoding(expected)
            note = f"it is not in {expected}, which it {'declares' if declared else 'should be in'}; read as {name}"
            return DecodedXml(*_divided(text), known_encoding(name) or name, note if is_other else None)
    if _is_latin(data):
        head, text = _divided(decoded(data, "latin-1") or "")
        return DecodedXml(head, text, "cp1252", "it declares no encoding; read as Latin-1")
    # Paths of another machine don't matter, so only names of classes need the encoding.
    head, text = _divided(data.decode("latin-1"))
    if any(not found.isascii() for found in re.findall(r"<(?:name|filename)>([^<]*)<", text)):
        said = f"{declared[1]}, as it declares" if declared else "UTF-8, as it declares no encoding"
        raise ValueError(
            f"expected text in {said}, got other bytes in a name; name the encoding, as in dataset.encoding=gb18030 "
            "(Chinese), cp932 (Japanese) or cp949 (Korean)"
        )
    note = "it is not in the encoding that it declares; its names are ASCII, so this has no effect"
    return DecodedXml(head, text, "latin-1", note, is_certain=False)


def _divided(text: str) -> tuple[str, str]:
    """The declaration, and what follows."""
    found = _DECLARATION.match(text[:_LONGEST_DECLARATION])
    end = 0 if found is None else found.end()
    return text[:end], text[end:]


def _is_latin(data: bytes) -> bool:
    """Whether bytes above ASCII stand alone and are letters in Latin-1. In other encodings they come in pairs."""
    runs = re.findall(rb"[\x80-\xff]+", data)
    return all(len(run) == 1 and run[0] >= 0xC0 and run[0] not in (0xD7, 0xF7) for run in runs)


Corners = tuple[float, float, float, float]


def _parse_object(element: ElementTree.Element) -> tuple[str, bool, Corners | None]:
    """The name, the difficult flag, and (xmin, ymin, xmax, ymax) as in the file; None for an object without a box."""
    name = _text(element, "name")
    if not name:
        raise ValueError("expected <name> in each <object>, got one without")
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"expected a class name of at most {_LONGEST_NAME} characters, got {len(name):,}")
    difficult = _text(element, "difficult").lower() in ("1", "true")
    box = element.find("bndbox")
    if box is not None and len(box):
        xmin, ymin, xmax, ymax = (
            _number(box.findtext(tag), f"object {name!r}, <{tag}>") for tag in ("xmin", "ymin", "xmax", "ymax")
        )
        return name, difficult, _upright((xmin, ymin, xmax, ymax), _degrees(element))
    for tag, corners_of in (("robndbox", _rotated_corners), ("polygon", _outline), ("points", _outline)):
        shape = element.find(tag)
        if shape is None:
            continue
        points = corners_of(shape, f"object {name!r}, <{tag}>")
        if points:
            xs, ys = zip(*points, strict=True)
            return name, difficult, (min(xs), min(ys), max(xs), max(ys))
    return name, difficult, None


def _degrees(element: ElementTree.Element) -> float:
    """The degrees by which CVAT rotated the box around its centre, clockwise; 0 without a rotation."""
    for one in element.iterfind("attributes/attribute"):
        if _text(one, "name") == ROTATION:
            try:
                return _number(_text(one, "value"), ROTATION) % 360
            except ValueError:  # an attribute of the user's, with another meaning
                return 0.0
    return 0.0


def _upright(corners: Corners, degrees: float) -> Corners:
    """The corners around a rotated box, as VOC counts them."""
    if not degrees:
        return corners
    xmin, ymin, xmax, ymax = corners
    centre = (xmin - 1 + xmax) / 2, (ymin - 1 + ymax) / 2
    x1, y1, x2, y2 = around_rotated((xmin - 1, ymin - 1, xmax, ymax), degrees, centre)
    return x1 + 1, y1 + 1, x2, y2


def _outline(shape: ElementTree.Element, what: str) -> list[tuple[float, float]]:
    """The points of an outline: <pt><x/><y/></pt> (labelme), <x1/><y1/><x2/><y2/> (Roboflow), or with <point>."""
    inner = [one for one in shape if one.tag in ("pt", "point")]
    if inner:
        return [
            (_number(one.findtext("x"), f"{what}, <x>"), _number(one.findtext("y"), f"{what}, <y>")) for one in inner
        ]
    # One pass, because an outline may have many points.
    numbers = {str(one.tag): one.text for one in shape}
    xs = [tag for tag in numbers if re.fullmatch(r"x[0-9]+", tag)]
    return [
        (_number(numbers[tag], f"{what}, <{tag}>"), _number(numbers.get(f"y{tag[1:]}"), f"{what}, <y{tag[1:]}>"))
        for tag in xs
    ]


def _rotated_corners(shape: ElementTree.Element, what: str) -> list[tuple[float, float]]:
    """The corners of a rotated box: centre cx, cy, sides w, h, and the angle in radians (roLabelImg)."""
    cx, cy, width, height, angle = (
        _number(shape.findtext(tag), f"{what}, <{tag}>") for tag in ("cx", "cy", "w", "h", "angle")
    )
    # Half of the sides of the upright box around it.
    x = (abs(width * math.cos(angle)) + abs(height * math.sin(angle))) / 2
    y = (abs(width * math.sin(angle)) + abs(height * math.cos(angle))) / 2
    return [(cx - x, cy - y), (cx + x, cy + y)]


def _number(text: str | None, what: str) -> float:
    """A finite number, also with a decimal comma. Raises ValueError that begins with `what`."""
    value = None if text is None else text.strip()
    if value and len(value) > _LONGEST_NUMBER:
        raise ValueError(f"{what}: expected a number, got {len(value):,} characters")
    return read_number(value.replace(",", ".") if value and _DECIMAL_COMMA.fullmatch(value) else value, what)


def box_of_corners(corners: Sequence[float]) -> Corners:
    """Convert VOC's inclusive corners xmin, ymin, xmax, ymax, which count from 1, to a half-open box."""
    (xmin, xmax), (ymin, ymax) = sorted(corners[0::2]), sorted(corners[1::2])
    # In VOC's convention a click is a box of one pixel, but nobody means that, so it stays empty.
    first = 1 if xmin < xmax and ymin < ymax else 0
    return _take_one(xmin, first), _take_one(ymin, first), xmax, ymax


def _take_one(value: float, first: int) -> float:
    return max(0.0, value - first) if 0 <= value < 1 else value - first


def _parse_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) from <size>, or labelme's <imagesize>; None if it is missing or not numeric."""
    for height, width in (("size/height", "size/width"), ("imagesize/nrows", "imagesize/ncols")):
        try:
            return (
                round(_number(_text(root, height) or None, height)),
                round(_number(_text(root, width) or None, width)),
            )
        except ValueError:
            continue
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
    objects = []
    for box, label, ignored in zip(truth.boxes, truth.labels, truth.difficult | truth.crowd, strict=True):
        try:
            texts = corner_texts(box.tolist())
        except ValueError as error:
            raise ValueError(f"{path}: {error}; drop the box") from error
        objects.append(VocObject(classes[int(label) - 1], bool(ignored), texts))
    write_voc_objects(path, filename, image_size, objects)


@dataclass(frozen=True)
class VocObject:
    """An object to be written. corners: the content of <bndbox>: `corner_texts` or `file_corners`."""

    name: str
    difficult: bool
    corners: Mapping[str, str]


def write_voc_objects(path: Path, filename: str, image_size: tuple[int, int], objects: Sequence[VocObject]) -> None:
    """Write the annotation of one image. image_size: (height, width). No objects give an annotation without any.

    Raises ValueError for a class name with a control character, which XML can't hold.
    """
    root = ElementTree.Element("annotation")
    _add(root, "filename", filename)
    size = _add(root, "size")
    for tag, pixels in (("width", image_size[1]), ("height", image_size[0]), ("depth", 3)):
        _add(size, tag, str(pixels))
    for each in objects:
        if _CONTROL.search(each.name):
            raise ValueError(f"{path}: expected a class name without control characters, got {each.name!r}; rename it")
        one = _add(root, "object")
        _add(one, "name", each.name)
        _add(one, "difficult", str(int(each.difficult)))
        corners = _add(one, "bndbox")
        for tag, value in each.corners.items():
            _add(corners, tag, value)
    ElementTree.indent(root, "\t")
    write_bytes(path, ElementTree.tostring(root, encoding="utf-8") + b"\n")


def file_corners(box: Sequence[float]) -> dict[str, str] | None:
    """The content of <bndbox> that is read as the half-open box (x1, y1, x2, y2); None if none is.

    The box that is read differs by less than a millionth of a pixel: VOC's shift by one pixel can cost the last bits of
    a coordinate near 0. Empty boxes are written without the shift, as they are read.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    for corners in ((x1 + 1, y1 + 1, x2, y2), (x1, y1, x2, y2)):
        if np.allclose(box_of_corners(corners), (x1, y1, x2, y2), rtol=0, atol=1e-6):
            return {tag: _decimal(value) for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)}
    return None


def _decimal(value: float) -> str:
    """Without a decimal point if it is whole."""
    return str(int(value)) if value.is_integer() else repr(value)


def corner_texts(box: Sequence[float]) -> dict[str, str]:
    """The content of <bndbox> for a half-open box (x1, y1, x2, y2): the inverse of the reader's conversion.

    Whole numbers are written without a decimal point. Raises ValueError for a box that is not wider and higher than one
    pixel, which VOC's convention can't express.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    if x2 - x1 <= 1 or y2 - y1 <= 1:
        raise ValueError(f"expected boxes wider and higher than 1 pixel, got {[x1, y1, x2, y2]}")
    values = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
    return {tag: _decimal(value) for tag, value in values.items()}


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
