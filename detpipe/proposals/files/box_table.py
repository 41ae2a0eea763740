"""The content of a proposal file of another program, before it is matched with images."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.datasets.coco_ids import number_of
from detpipe.storage.reader_process import Arrays
from detpipe.structures import Float32Array


class ProposalFileError(ValueError):
    """A file that doesn't hold proposals in a supported format."""


@dataclass(frozen=True, eq=False)
class StoredBoxes:
    """The boxes of one image as stored in the file.

    boxes: (N, 4) float32, x1 y1 x2 y2 half-open; with `is_mat`, in one of the two forms of `rcnn_mat`, which only the
    image's size distinguishes. scores: (N,) float32, or None if the boxes are only ordered, best first. are_shares: the
    boxes are shares of the image's width and height.
    """

    boxes: Float32Array
    scores: Float32Array | None
    is_mat: bool = False
    are_shares: bool = False


@dataclass(frozen=True, eq=False)
class BoxTable:
    """The boxes of a file by image. Key: the image's name in the file or, if `nameless`, its index from 0.

    by_id: the keys are image ids (COCO's integers); match ids before file names.
    """

    source: Path
    boxes: Mapping[str, StoredBoxes]
    nameless: bool = False
    by_id: bool = False

    @functools.cached_property
    def by_short_name(self) -> Mapping[str, str]:
        """From the ends of the key "a/b/file.jpg" ("b/file.jpg", "file.jpg", "file") to it, without ambiguous ends."""
        short: dict[str, str | None] = {}
        for key in self.boxes:
            pure = PurePosixPath(key)
            for name in {*path_ends(pure), pure.stem}:
                short[name] = None if name in short else key
        return {name: key for name, key in short.items() if key is not None}

    @functools.cached_property
    def by_number(self) -> Mapping[int, str]:
        """From the number that a key means to the key, without ambiguous numbers: 7 for "7" and "000007"."""
        keys: dict[int, str | None] = {}
        for key in self.boxes:
            number = number_of(key)
            if number is not None:
                keys[number] = None if number in keys else key
        return {number: key for number, key in keys.items() if key is not None}

    def to_arrays(self) -> tuple[Any, Arrays]:
        """The table as JSON and arrays of all its boxes, to send it from the process that read the file."""
        stored = list(self.boxes.values())
        none = StoredBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        form = {
            "names": list(self.boxes),
            "nameless": self.nameless,
            "by_id": self.by_id,
            "is_mat": any(one.is_mat for one in stored),
            "are_shares": [number for number, one in enumerate(stored) if one.are_shares],
        }
        return form, {
            "boxes": np.concatenate([none.boxes, *(one.boxes for one in stored)]),
            "counts": np.array([len(one.boxes) for one in stored], np.int64),
            "has_scores": np.array([one.scores is not None for one in stored], np.bool_),
            "scores": np.concatenate([none.scores, *(one.scores for one in stored if one.scores is not None)]),
        }

    @staticmethod
    def from_arrays(source: Path, form: Any, arrays: Arrays) -> BoxTable:
        """The inverse of `to_arrays`. The boxes of the images are views of the arrays."""
        ends = np.cumsum(arrays["counts"])
        scored = np.where(arrays["has_scores"], arrays["counts"], 0)
        score_ends = np.cumsum(scored)
        in_shares = set(form["are_shares"])
        boxes = {}
        for number, name in enumerate(form["names"]):
            own = arrays["boxes"][ends[number] - arrays["counts"][number] : ends[number]]
            scores = arrays["scores"][score_ends[number] - scored[number] : score_ends[number]]
            boxes[name] = StoredBoxes(
                own, scores if arrays["has_scores"][number] else None, form["is_mat"], number in in_shares
            )
        return BoxTable(source, boxes, nameless=form["nameless"], by_id=form["by_id"])


def path_ends(path: PurePath) -> list[str]:
    """The path without 0, 1, ... of its leading folders, the file name alone last; with slashes."""
    parts = [part for part in path.parts if part != path.anchor]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def as_stored(
    source: Path,
    name: str,
    boxes: object,
    scores: object = None,
    *,
    is_mat: bool = False,
    are_shares: bool = False,
) -> StoredBoxes:
    """Check and convert the boxes of an image: (N, 4) numbers, or (N, 5) with a column of scores.

    An empty array of any shape means no boxes. Raises ProposalFileError.
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
        raise ProposalFileError(
            f"{source}: image {name}: expected one score per box, got {len(column)} scores of {len(array)} boxes"
        )
    with np.errstate(over="ignore"):
        stored = StoredBoxes(array[:, :4].astype(np.float32), column, is_mat, are_shares)
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
