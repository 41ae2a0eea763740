"""What a file of foreign proposals holds, before it is matched with images."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from detpipe.structures import Float32Array


class ProposalFileError(ValueError):
    """A file that holds no proposals in a form that is understood."""


@dataclass(frozen=True, eq=False)
class StoredBoxes:
    """The boxes of one image as its file has them.

    boxes: (N, 4) float32, x1 y1 x2 y2 half-open; or, where `is_mat`, one of the two forms of `rcnn_mat`, which only the
    image's size can tell apart. scores: (N,) float32, or None where the order is all there is, best first.
    """

    boxes: Float32Array
    scores: Float32Array | None
    is_mat: bool = False


@dataclass(frozen=True, eq=False)
class BoxTable:
    """The boxes of a file by image. Key: the image's name in the file, or, where `nameless`, its number from 0.

    by_id: names are ids of images (COCO's integers), to be preferred to the names of files where both are there.
    """

    source: Path
    boxes: Mapping[str, StoredBoxes]
    nameless: bool = False
    by_id: bool = False

    @functools.cached_property
    def by_short_name(self) -> Mapping[str, str]:
        """From "file.jpg" and "file" to the key "folder/file.jpg", where only one is meant."""
        short: dict[str, str | None] = {}
        for key in self.boxes:
            pure = PurePosixPath(key)
            for name in {pure.name, pure.stem}:
                short[name] = None if name in short else key
        return {name: key for name, key in short.items() if key is not None}


def as_stored(source: Path, name: str, boxes: object, scores: object = None, *, is_mat: bool = False) -> StoredBoxes:
    """Check and convert what a file holds for an image: (N, 4) numbers, or (N, 5) with a column of scores.

    An empty array of any shape is no boxes. Raises ProposalFileError.
    """
    array = _numbers(source, name, boxes, "boxes")
    if not array.size:
        array = np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise ProposalFileError(f"{source}: image {name}: expected boxes (N, 4), got {array.shape}")
    if array.shape[1] == 5 and scores is None:
        array, scores = array[:, :4], array[:, 4]
    column = None if scores is None else _numbers(source, name, scores, "scores").reshape(-1).astype(np.float32)
    if column is not None and len(column) != len(array):
        raise ProposalFileError(f"{source}: image {name}: expected a score a box, got {len(column)} of {len(array)}")
    with np.errstate(over="ignore"):
        stored = StoredBoxes(array[:, :4].astype(np.float32), column, is_mat)
    if not np.isfinite(stored.boxes).all() or (column is not None and np.isnan(column).any()):
        raise ProposalFileError(f"{source}: image {name}: expected finite boxes and scores, got NaN or infinity")
    return stored


def _numbers(source: Path, name: str, value: object, what: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(value)
        if array.size and array.dtype.kind not in "iuf":
            raise ValueError(f"{array.dtype}")
        return array.astype(np.float64) if array.size else np.zeros(array.shape)
    except ValueError as error:
        raise ProposalFileError(f"{source}: image {name}: expected {what} as numbers, got {error}") from error
