"""One image of a data set as its files describe it; reads its header and turns its objects into ground truth."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detpipe import boxes as box_ops
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.image_file import BrokenImageError, ImageHeader, TruncatedImageError, read_header
from detpipe.structures import PLAIN_READING, GroundTruth, ImageId, LoadedTruth, ReadOptions, WrittenTruth

FARTHEST = 1e15
"""Coordinates beyond this are moved to it, so that float32 can hold areas."""


@dataclass(frozen=True)
class RawObject:
    """One object as in its file, before its box is corrected.

    box: x1 y1 x2 y2, half-open, pixels; it may extend beyond the image or be empty. area: square pixels; None means the
    area of the box. written: x y width height as the file has them, which the corners can't always give back exactly;
    None if the file has corners. id: the id of the annotation as text; None if the format has none.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    written: tuple[float, float, float, float] | None = None
    id: str | None = None


@dataclass(frozen=True)
class Entry:
    """One image of a split as the files describe it.

    image: the path of the image, or None if no file was found. origin: the annotation file or list that names the
    image. stated_size: (height, width) as the annotation states it, right or wrong. fault: the reason why the image
    can't be used, if it is known before the image is read. An entry whose image is missing still has its objects.
    notes: faults of the annotation with which the image can still be used.
    """

    image_id: ImageId
    image: Path | None
    origin: Path
    objects: tuple[RawObject, ...] = ()
    stated_size: tuple[int, int] | None = None
    fault: Finding | None = None
    notes: tuple[Finding, ...] = ()


def usable_header(
    entry: Entry,
    options: ReadOptions = PLAIN_READING,
    read: Callable[[Path, ReadOptions], ImageHeader] = read_header,
) -> ImageHeader | Finding:
    """The header of an entry's image, or a finding with the reason why the image can't be used.

    read: reads the header of a file, and may read more of it. It raises as `read_header`.
    """
    if entry.fault is not None:
        return entry.fault
    if entry.image is None:
        return finding("missing_image", entry.origin, f"no image file for {entry.image_id}")
    try:
        return read(entry.image, options)
    except (FileNotFoundError, IsADirectoryError):
        return finding("missing_image", entry.image, f"no such file, named in {entry.origin.name}")
    except (BrokenImageError, OSError) as error:
        return image_fault(entry.image, error)


def image_fault(path: Path, error: BrokenImageError | OSError) -> Finding:
    """The finding for an image that could not be read or decoded."""
    kind = "truncated_image" if isinstance(error, TruncatedImageError) else "broken_image"
    if isinstance(error, OSError):
        return finding(kind, path, f"can't be read: {error.strerror or error}")
    return finding(kind, path, str(error).removeprefix(f"{path}: "))


def sound_truth(objects: Sequence[RawObject], labels: dict[str, int], image_size: tuple[int, int]) -> GroundTruth:
    """The objects of the classes in `labels`, with boxes clipped to the image.

    Boxes that are then empty, or under a pixel wide and high, are dropped: no network can be trained on them.
    `measured` of the result has all objects, as their file has them.
    labels: from class name to 1..K. image_size: (height, width). No objects give an empty GroundTruth.
    """
    known = [one for one in objects if one.name in labels]
    corners = np.array([one.box for one in known], dtype=np.float64).reshape(-1, 4)
    # A box with negative width or height counts as empty.
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
    unclipped = np.clip(corners, -FARTHEST, FARTHEST).astype(np.float32)
    clipped = box_ops.clip(unclipped, image_size)
    clipped_areas = box_ops.area(clipped)
    of_class = np.array([labels[one.name] for one in known], dtype=np.int64)
    difficult = np.array([one.difficult for one in known], dtype=np.bool_)
    crowd = np.array([one.crowd for one in known], dtype=np.bool_)
    # Some exporters write an area of 0 as a placeholder.
    areas = np.array(
        [one.area if one.area and one.area > 0 else own for one, own in zip(known, clipped_areas, strict=True)],
        dtype=np.float32,
    )
    written: GroundTruth | None = None
    if known and all(one.written is not None for one in known):
        xywh = np.array([one.written for one in known], dtype=np.float64)
        own_areas = np.array(
            [wh if one.area is None else one.area for one, wh in zip(known, xywh[:, 2] * xywh[:, 3], strict=True)],
            dtype=np.float64,
        )
        written = WrittenTruth(
            unclipped, of_class, difficult, crowd, own_areas.astype(np.float32), xywh=xywh, written_areas=own_areas
        )
    usable = (clipped_areas > 0) & (clipped[:, 2:] - clipped[:, :2] >= 1).any(axis=1)
    if written is None and not (usable.all() and np.array_equal(unclipped, clipped)):
        written = GroundTruth(unclipped, of_class, difficult, crowd, box_ops.area(unclipped))
    if not usable.all():
        clipped, of_class, areas = clipped[usable], of_class[usable], areas[usable]
        difficult, crowd = difficult[usable], crowd[usable]
    if written is None:
        return GroundTruth(clipped, of_class, difficult, crowd, areas)
    return LoadedTruth(clipped, of_class, difficult, crowd, areas, written)


def read_number(value: object, what: str) -> float:
    """A finite number from a file. Raises ValueError that begins with `what`."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what}: expected a number, got {reprlib.repr(value)}") from error
    if not math.isfinite(number):
        raise ValueError(f"{what}: expected a finite number, got {value!r}")
    return number
