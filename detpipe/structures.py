"""The data types that the stages exchange: dataclasses that check their shapes and dtypes.

N: boxes of one image. K: classes, labels 1..K, background 0. A box is x1 y1 x2 y2 in pixels, a half-open
rectangle of the plane (width = x2 - x1). `image_size` is (height, width).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, RGB."""
ImageId = int | str
"""An integer id in COCO files, or the file name without suffix in a folder."""


def _check(owner: object, name: str, shape: tuple[int, ...], dtype: type) -> None:
    """Raise ValueError unless `owner.name` has the shape and dtype; -1 in the shape means any length."""
    value = getattr(owner, name)
    what = f"{type(owner).__name__}.{name}"
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{what}: expected a numpy array, got {type(value).__name__}")
    fits = value.ndim == len(shape) and all(want in (-1, got) for want, got in zip(shape, value.shape, strict=True))
    if not fits or value.dtype != dtype:
        want = f"({', '.join('N' if s == -1 else str(s) for s in shape)}) {np.dtype(dtype)}"
        raise ValueError(f"{what}: expected {want}, got {value.shape} {value.dtype}")


def _check_boxes(owner: object, boxes: Float32Array) -> None:
    """Raise ValueError unless all boxes are finite with x1 <= x2 and y1 <= y2."""
    if not np.isfinite(boxes).all():
        raise ValueError(f"{type(owner).__name__}.boxes: expected finite coordinates, got NaN or infinity")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        wrong = boxes[(boxes[:, 2:] < boxes[:, :2]).any(axis=1)][0]
        raise ValueError(f"{type(owner).__name__}.boxes: expected x1 <= x2 and y1 <= y2, got {wrong.tolist()}")


MAX_PIXELS = 100_000_000
"""Default limit on height x width of an image. Decoded, so many pixels take 300 MB."""


class Stretch(Enum):
    """How the values of an image are spread over 0..255 when its file is read."""

    none = "none"
    """8 bits stay as they are, of 16 bits the upper 8 are kept."""
    bits = "bits"
    """The lowest power of two above the largest value becomes 256, as for 12-bit data in 16-bit files."""
    percentile = "percentile"
    """The 0.5th percentile becomes 0, the 99.5th 255; values outside are clipped."""


@dataclass(frozen=True)
class ReadOptions:
    """How an image file is read. max_pixels: limit on height x width, checked in the header before decoding."""

    max_pixels: int = MAX_PIXELS
    stretch: Stretch = Stretch.none


PLAIN_READING = ReadOptions()
"""The default."""


@dataclass(frozen=True)
class ImageRecord:
    """One image of a data set.

    image_size: (height, width) after EXIF rotation, as `read_image` gives it. options: for `read_image`. has_file:
    False if the file is missing, which is enough to measure detections; the size is then the annotation's.
    """

    image_id: ImageId
    path: Path
    image_size: tuple[int, int]
    options: ReadOptions = PLAIN_READING
    has_file: bool = True


@dataclass(frozen=True)
class LeftOut:
    """An image that was left out.

    path: its file, or the annotation or list that names it. reason: without the path. key: "split/image id" of the
    record that is missing in a database for it; None if no record was expected.
    """

    path: str
    reason: str
    key: str | None = None

    @classmethod
    def because(cls, path: Path, error: object, key: str | None = None) -> LeftOut:
        """Make one from an error. If its message begins with the path, this part is removed."""
        return cls(str(path), str(error).removeprefix(f"{path}: "), key)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The objects of one image.

    boxes: (N, 4) float32. labels: (N,) int64 in 1..K. difficult: (N,) bool, ignored by VOC's metrics.
    crowd: (N,) bool, a group of objects, ignored by all metrics and by training.
    areas: (N,) float32, square pixels, for COCO's object sizes: the area of the mask if known, else of the box.
    """

    boxes: Float32Array
    labels: Int64Array
    difficult: BoolArray
    crowd: BoolArray
    areas: Float32Array

    def __post_init__(self) -> None:
        _check(self, "boxes", (-1, 4), np.float32)
        _check_boxes(self, self.boxes)
        n = len(self.boxes)
        for name, dtype in (
            ("labels", np.int64),
            ("difficult", np.bool_),
            ("crowd", np.bool_),
            ("areas", np.float32),
        ):
            _check(self, name, (n,), dtype)
        if n and self.labels.min() < 1:
            raise ValueError(f"GroundTruth.labels: expected 1..K (0 is background), got {int(self.labels.min())}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: BoolArray | Int64Array) -> GroundTruth:
        return GroundTruth(*(getattr(self, field.name)[index] for field in fields(GroundTruth)))

    @property
    def measured(self) -> GroundTruth:
        """The objects for evaluation: as their file has them if they are of a file, else these."""
        return self

    @classmethod
    def from_boxes(cls, boxes: npt.ArrayLike, labels: npt.ArrayLike) -> GroundTruth:
        """Objects that are neither difficult nor crowds, with the areas of the boxes. Empty lists give no objects."""
        box_array = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        n = len(box_array)
        width_height = box_array[:, 2:] - box_array[:, :2]
        return cls(
            boxes=box_array,
            labels=np.asarray(labels, dtype=np.int64).reshape(-1),
            difficult=np.zeros(n, dtype=np.bool_),
            crowd=np.zeros(n, dtype=np.bool_),
            areas=width_height.prod(axis=1, dtype=np.float32),
        )


@dataclass(frozen=True, eq=False)
class WrittenTruth(GroundTruth):
    """The objects of one image exactly as their COCO file has them. Evaluation needs them, as pycocotools does.

    Boxes may reach outside the image or be empty.
    xywh: (N, 4) float64, x y width height. written_areas: (N,) float64, square pixels. Both have the file's own
    numbers: float32 would change which IoU reaches a threshold, and which object is small.
    """

    xywh: Float64Array
    written_areas: Float64Array

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "xywh", (len(self.boxes), 4), np.float64)
        _check(self, "written_areas", (len(self.boxes),), np.float64)


@dataclass(frozen=True, eq=False)
class LoadedTruth(GroundTruth):
    """The objects of one image for training (boxes clipped to the image, none empty), and as in their file.

    written: all objects as in the file, in its order. It may have more objects than this one.
    """

    written: GroundTruth

    @property
    def measured(self) -> GroundTruth:
        return self.written


@dataclass(frozen=True, eq=False)
class Proposals:
    """Region proposals of one image by descending score: boxes (N, 4) float32, scores (N,) float32."""

    boxes: Float32Array
    scores: Float32Array

    def __post_init__(self) -> None:
        _check(self, "boxes", (-1, 4), np.float32)
        _check_boxes(self, self.boxes)
        _check(self, "scores", (len(self.boxes),), np.float32)
        _check_sorted(self, self.scores)

    def __len__(self) -> int:
        return len(self.boxes)

    def top(self, k: int) -> Proposals:
        """The k proposals with the highest scores, or all if there are fewer."""
        return Proposals(self.boxes[:k], self.scores[:k])


class Detection(NamedTuple):
    """One detection: box (4,) float32, x1 y1 x2 y2 in pixels, score, label 1..K, and the name of its class if known."""

    box: Float32Array
    score: float
    label: int
    name: str | None


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Detections of one image by descending score: boxes (N, 4) float32, scores (N,) float32, labels (N,) int64.

    `found[index]` gives the chosen ones as Detections: by a mask (N,), a slice, an array of positions, or one position,
    which gives Detections of length 1. Iteration gives a `Detection` each. N = 0 is allowed.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels")
    """The fields with a row for each detection."""

    boxes: Float32Array
    scores: Float32Array
    labels: Int64Array

    def __post_init__(self) -> None:
        _check(self, "boxes", (-1, 4), np.float32)
        _check_boxes(self, self.boxes)
        _check(self, "scores", (len(self.boxes),), np.float32)
        _check(self, "labels", (len(self.boxes),), np.int64)
        _check_sorted(self, self.scores)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int | slice | npt.ArrayLike) -> Self:
        """The chosen detections. Raises IndexError for positions and masks that do not fit, and for another order."""
        chosen = _positions(index, len(self))
        scores = self.scores[chosen]
        if (scores[1:] > scores[:-1]).any():
            raise IndexError(
                "expected positions from high to low score, as Detections are sorted, got another order; sort the "
                "positions, or index the arrays themselves"
            )
        return replace(self, **{name: getattr(self, name)[chosen] for name in self.COLUMNS})

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.boxes, self.scores.tolist(), self.labels.tolist(), strict=True)
        return (Detection(box, score, label, self.class_name(label)) for box, score, label in rows)

    def class_name(self, label: int) -> str | None:  # noqa: ARG002
        """The name of a label 1..K; None if these detections do not know their classes."""
        return None

    def __repr__(self) -> str:
        few = [f"{one.name or f'label {one.label}'} {one.score:.2f}" for one in self[:REPR_LENGTH]]
        more = [f"{len(self) - REPR_LENGTH} more"] if len(self) > REPR_LENGTH else []
        return f"{type(self).__name__}({', '.join([*few, *more]) or 'no objects'})"

    def __str__(self) -> str:
        """A table: class, score and box of each detection, the best first."""
        names = [one.name or f"label {one.label}" for one in self]
        width = max(map(len, ["class", *names]))
        lines = [f"{'class':<{width}}  score        x1        y1        x2        y2"]
        for name, one in zip(names, self, strict=True):
            lines.append(f"{name:<{width}}  {one.score:5.3f}  " + "  ".join(f"{side:8.1f}" for side in one.box))
        return "\n".join(lines) if names else "no objects"


REPR_LENGTH = 5
"""Detections that `repr` names."""


def _positions(index: int | slice | npt.ArrayLike, length: int) -> Int64Array:
    """The positions (M,) that an index chooses of `length` detections. Raises IndexError for any other index."""
    if isinstance(index, slice):
        return np.arange(length)[index]
    given = np.asarray(index)
    if given.ndim == 1 and not given.size:
        given = given.astype(np.int64)
    if given.dtype == np.bool_ and given.shape != (length,):
        raise IndexError(f"expected a mask of {length} detections, got one of shape {given.shape}")
    if given.dtype.kind not in "biu" or given.ndim > 1:
        raise IndexError(
            f"expected a position, a slice, a mask or positions, got {type(index).__name__} {given.shape} {given.dtype}"
        )
    if given.size and given.dtype != np.bool_ and not -length <= int(given.min()) <= int(given.max()) < length:
        raise IndexError(f"expected positions from {-length} to {length - 1}, got {given.tolist()}")
    return np.atleast_1d(np.arange(length)[given])


@dataclass(frozen=True, eq=False, repr=False)
class WrittenDetections(Detections):
    """Detections of one image exactly as a result file has them. Equal scores are in the order of the file.

    xywh: (N, 4) float64, x y width height. written_scores: (N,) float64. Both have the file's own numbers, as
    pycocotools compares them.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (*Detections.COLUMNS, "xywh", "written_scores")

    xywh: Float64Array
    written_scores: Float64Array

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "xywh", (len(self.boxes), 4), np.float64)
        _check(self, "written_scores", (len(self.boxes),), np.float64)


def _check_sorted(owner: object, scores: Float32Array) -> None:
    if np.isnan(scores).any():
        raise ValueError(f"{type(owner).__name__}.scores: expected numbers, got NaN")
    if (scores[1:] > scores[:-1]).any():
        raise ValueError(
            f"{type(owner).__name__}.scores: expected descending order, got another; sort with detpipe.boxes.rank"
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images and objects of one split of a VOC folder, COCO file or image folder.

    classes: names in label order; label k is classes[k - 1]. category_ids: the id of each class in result files (those
    of a COCO file, otherwise 1..K). ground_truth: by image id, for training; an image without objects has an empty
    GroundTruth; None if the images are not annotated. bad: the images that were left out.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: tuple[ImageRecord, ...]
    ground_truth: Mapping[ImageId, GroundTruth] | None
    bad: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"{self.name}: expected unique class names, got {list(self.classes)}")
        if len(self.category_ids) != len(self.classes):
            raise ValueError(
                f"{self.name}: expected {len(self.classes)} category ids, as there are classes, got "
                f"{len(self.category_ids)}"
            )
        ids = {record.image_id for record in self.records}
        if len(ids) != len(self.records):
            raise ValueError(f"{self.name}: expected unique image ids, got one twice")
        if self.ground_truth is not None and ids - self.ground_truth.keys():
            missing = sorted(map(str, ids - self.ground_truth.keys()))
            raise ValueError(
                f"{self.name}: expected ground truth of each image, got none for {missing[:3]}; give an empty one "
                "for an image without objects"
            )

    def __len__(self) -> int:
        return len(self.records)

    @property
    def measured_truth(self) -> dict[ImageId, GroundTruth] | None:
        """The objects for evaluation by image id, in the order of the records: as their files have them.

        Boxes are not clipped to the image, and empty ones are included, as in pycocotools and the VOC devkit. None if
        the images are not annotated.
        """
        if self.ground_truth is None:
            return None
        return {record.image_id: self.ground_truth[record.image_id].measured for record in self.records}
