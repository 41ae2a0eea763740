"""A box in the four numbers in which the baselines of Hosang et al. (PAMI 2015, section 2.3) sample it.

Columns of an (N, 4) float64 array: x and y of the centre as shares of the image's width and height, square root of
the area as a share of the image's, log2 of width / height.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from detpipe.boxes import area
from detpipe.structures import Float32Array, GroundTruth

RelativeBoxes = npt.NDArray[np.float64]


def to_relative(boxes: Float32Array, image_size: tuple[int, int]) -> RelativeBoxes:
    """(N, 4) boxes with an area, (height, width) -> (N, 4) relative ones."""
    height, width = image_size
    box_width, box_height = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).T
    return np.stack(
        [
            (boxes[:, 0] + boxes[:, 2]) / 2.0 / width,
            (boxes[:, 1] + boxes[:, 3]) / 2.0 / height,
            np.sqrt(box_width * box_height / (width * height)),
            np.log2(box_width / box_height),
        ],
        axis=1,
    )


def from_relative(relative: RelativeBoxes, image_size: tuple[int, int]) -> Float32Array:
    """The inverse of `to_relative`: (N, 4), (height, width) -> (N, 4) float32 boxes, not clipped."""
    height, width = image_size
    centre = relative[:, :2] * (width, height)
    side = relative[:, 2] * np.sqrt(width * height)
    stretch = np.exp2(relative[:, 3] / 2)
    half = np.stack([side * stretch, side / stretch], axis=1) / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def relative_objects(objects: Iterable[tuple[GroundTruth, tuple[int, int]]]) -> RelativeBoxes:
    """All objects of (ground truth, image_size) pairs but crowds and boxes without area -> (N, 4)."""
    rows = [np.zeros((0, 4))]
    for ground_truth, image_size in objects:
        boxes = ground_truth.boxes[~ground_truth.crowd]
        rows.append(to_relative(boxes[area(boxes) > 0], image_size))
    return np.concatenate(rows)
