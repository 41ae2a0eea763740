"""Boxes on images that EXIF rotates: finds out whether they were drawn before the rotation, and rotates them."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from detpipe.datasets.entry import Entry, RawObject
from detpipe.datasets.findings import finding
from detpipe.datasets.image_file import ImageHeader


class ExifBoxes(Enum):
    """The pixels that boxes were drawn on, for images that EXIF rotates."""

    auto = "auto"
    """The stated size decides: boxes are rotated if it is the size before rotation."""
    upright = "upright"
    """The rotated image, as it is shown: boxes stay as they are."""
    raw = "raw"
    """The image before rotation, as tools without EXIF show it: boxes are rotated with the image."""


def are_raw_boxes(entry: Entry, header: ImageHeader, exif_boxes: ExifBoxes) -> bool:
    """Whether the boxes of an image that EXIF rotates were drawn on its pixels before rotation.

    With ExifBoxes.auto they were if the annotation states the size before rotation. A rotation by 180 degrees and a
    square image don't change the size, so then nothing shows it.
    """
    if header.orientation == 1 or exif_boxes is ExifBoxes.upright:
        return False
    return exif_boxes is ExifBoxes.raw or entry.stated_size == header.raw_size != header.image_size


def upright_entry(entry: Entry, header: ImageHeader) -> Entry:
    """The entry with boxes and stated size rotated as the image is, and a note that says so."""
    objects = tuple(_upright_object(one, header) for one in entry.objects)
    stated = entry.stated_size
    if stated is not None and header.orientation >= 5:
        stated = stated[::-1]
    detail = (
        f"{len(objects)} boxes were drawn before EXIF's rotation (orientation {header.orientation}) and are rotated"
    )
    note = finding("turned_boxes", entry.origin, f"{detail}; if they were right, give dataset.exif_boxes=upright")
    return replace(entry, objects=objects, stated_size=stated, notes=(*entry.notes, note))


def raw_box(box: tuple[float, float, float, float], header: ImageHeader) -> tuple[float, float, float, float]:
    """A box on the image after EXIF's rotation -> on its pixels before it: the inverse of `upright_entry`."""
    inverse = {6: 8, 8: 6}.get(header.orientation, header.orientation)
    return _upright_box(box, inverse, header.raw_size)


def _upright_object(one: RawObject, header: ImageHeader) -> RawObject:
    box = _upright_box(one.box, header.orientation, header.image_size)
    if one.written is None:
        return replace(one, box=box)
    sides = one.written[2:] if header.orientation < 5 else one.written[:1:-1]
    return replace(one, box=box, written=(box[0], box[1], *sides))


def _upright_box(
    box: tuple[float, float, float, float], orientation: int, image_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box on the pixels before rotation -> on the image of `image_size` (height, width) after it, by EXIF 2.3."""
    x1, y1, x2, y2 = box
    height, width = image_size
    if orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    return x1, y1, x2, y2
