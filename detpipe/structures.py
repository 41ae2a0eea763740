"""What flows between the stages: small dataclasses that check their shapes and dtypes.

N: boxes of one image. K: classes, labels 1..K, background 0. A box is x1 y1 x2 y2 in pixels, a half-open
rectangle of the plane (width = x2 - x1). `image_size` is (height, width).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, RGB."""
ImageId = int | str
"""COCO's integer id, or the image's stem for a folder."""


def _check(owner: object, name: str, shape: tuple[int, ...], dtype: type) -> None:
    """Raise ValueError unless `owner.name` has the shape and dtype; shape entry -1 means any length."""
    value = getattr(owner, name)
    what = f"{type(owner).__name__}.{name}"
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{what}: expected a numpy array, got {type(value).__name__}")
    fits = value.ndim == len(shape) and all(want in (-1, got) for want, got in zip(shape, value.shape, strict=True))
    if not fits or value.dtype != dtype:
        want = f"({', '.join('N' if s == -1 else str(s) for s in shape)}) {np.dtype(dtype)}"
        raise ValueError(f"{what}: expected {want}, got {value.shape} {value.dtype}")


def _check_boxes(owner: object, boxes: Float32Array) -> None:
    """Raise ValueError unless each box is finite with x1 <= x2 and y1 <= y2."""
    if not np.isfinite(boxes).all():
        raise ValueError(f"{type(owner).__name__}.boxes: expected finite coordinates, got NaN or infinity")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        wrong = boxes[(boxes[:, 2:] < boxes[:, :2]).any(axis=1)][0]
        raise ValueError(f"{type(owner).__name__}.boxes: expected x1 <= x2 and y1 <= y2, got {wrong.tolist()}")


@dataclass(frozen=True)
class ImageRecord:
    """One image of a data set: its id, its file, and its size as `read_image` would give it.

    image_size: (height, width) after EXIF rotation.
    """

    image_id: ImageId
    path: Path
    image_size: tuple[int, int]


@dataclass(frozen=True)
class LeftOut:
    """An image that was left out.

    path: its file, or the annotation or list that names it. reason: why, without the path. key: "split/image id" of the
    record that a database lacks for it; None where no record was expected.
    """

    path: str
    reason: str
    key: str | None = None

    @classmethod
    def because(cls, path: Path, error: object, key: str | None = None) -> LeftOut:
        """From an error whose message may begin with the path, which is not repeated."""
        return cls(str(path), str(error).removeprefix(f"{path}: "), key)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The objects of one image.

    boxes: (N, 4) float32. labels: (N,) int64 in 1..K. difficult: (N,) bool, ignored by VOC's metrics.
    crowd: (N,) bool, a group of objects, ignored by every metric and by training.
    areas: (N,) float32, pixels; COCO sorts objects into small, medium and large by the mask's area, else the box's.
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
        return GroundTruth(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def from_boxes(cls, boxes: npt.ArrayLike, labels: npt.ArrayLike) -> GroundTruth:
        """Plain objects: none difficult, none a crowd, areas those of the boxes. Takes empty lists."""
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
class Proposals:
    """Where things might be in one image, best first: boxes (N, 4) float32, scores (N,) float32."""

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
        """The k best, or all where there are fewer."""
        return Proposals(self.boxes[:k], self.scores[:k])


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, best first: boxes (N, 4) float32, scores (N,) float32, labels (N,) int64 1..K."""

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


def _check_sorted(owner: object, scores: Float32Array) -> None:
    if np.isnan(scores).any():
        raise ValueError(f"{type(owner).__name__}.scores: expected numbers, got NaN")
    if (scores[1:] > scores[:-1]).any():
        raise ValueError(f"{type(owner).__name__}.scores: expected high to low; sort with detpipe.boxes.rank")


@dataclass(frozen=True, eq=False)
class Dataset:
    """One list of images and what is in them: a split of a VOC folder, a COCO file, a folder.

    classes: names in label order, label k is classes[k - 1]. category_ids: the number that a result file gives to
    each class (COCO's own ids; 1..K elsewhere). ground_truth: from image id; an image without objects has an empty
    GroundTruth; None where the images have no annotations at all. bad: the images that were left out.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: tuple[ImageRecord, ...]
    ground_truth: Mapping[ImageId, GroundTruth] | None
    bad: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"{self.name}: a class name stands twice in {list(self.classes)}")
        if len(self.category_ids) != len(self.classes):
            raise ValueError(f"{self.name}: {len(self.classes)} classes but {len(self.category_ids)} category ids")
        ids = {record.image_id for record in self.records}
        if len(ids) != len(self.records):
            raise ValueError(f"{self.name}: an image id stands twice")
        if self.ground_truth is not None and ids - self.ground_truth.keys():
            missing = sorted(map(str, ids - self.ground_truth.keys()))
            raise ValueError(f"{self.name}: no ground truth for {missing[:3]}; give an empty one for an empty image")

    def __len__(self) -> int:
        return len(self.records)
