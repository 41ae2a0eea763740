"""Crop regions from an image and resize them to the network's input size (R-CNN, Girshick et al. 2014, appendix A).

R: regions. S: side of a crop in pixels. Images and crops are uint8 RGB.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from detpipe.classify.crops.settings import REFERENCE_SIDE, CropConfig, CropMode
from detpipe.resize import resize
from detpipe.structures import Float32Array, Image


def context_boxes(boxes: Float32Array, config: CropConfig) -> npt.NDArray[np.float64]:
    """Boxes enlarged by the context: (R, 4) -> (R, 4). They may extend beyond the image.

    The box fills the crop except for the context; in square mode, the longer side of the box does.
    """
    centre = (boxes[:, 2:].astype(np.float64) + boxes[:, :2]) / 2
    size = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    if config.mode is CropMode.square:
        size = np.repeat(size.max(axis=1, keepdims=True), 2, axis=1)
    size = size * REFERENCE_SIDE / (REFERENCE_SIDE - 2 * config.context_pad)
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def crop_regions(image: Image, boxes: Float32Array, config: CropConfig) -> npt.NDArray[np.uint8]:
    """Crop all regions with bilinear interpolation: (H, W, 3), (R, 4) -> (R, S, S, 3); R = 0 gives (0, S, S, 3).

    Pixels outside the image are `fill`. A large region is read from a copy of the image that was repeatedly halved on
    each axis (a ripmap). So shrinking averages pixels instead of skipping them, and a large region costs no more than a
    small one.
    Raises ValueError for a box without area.
    """
    side = config.size
    crops = np.empty((len(boxes), side, side, 3), dtype=np.uint8)
    context = context_boxes(boxes, config)
    size = context[:, 2:] - context[:, :2]
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    if len(boxes) and sides.min() <= 0:
        raise ValueError(f"crop: expected boxes with an area, got {boxes[sides.argmin()].tolist()}")
    # For each axis, the level at which the region shrinks by less than 2: the crop keeps its full resolution.
    levels = np.floor(np.log2(np.maximum(size / side, 1))).astype(int)
    ripmap: dict[tuple[int, int], Image] = {(0, 0): image}
    for row, (left, top, right, bottom) in enumerate(context):
        key = (int(levels[row, 0]), int(levels[row, 1]))
        if key not in ripmap:
            ripmap[key] = _shrunk(image, *key)
        level = ripmap[key]
        to_level = (level.shape[1] / image.shape[1], level.shape[0] / image.shape[0])
        scale_x, scale_y = (right - left) / side * to_level[0], (bottom - top) / side * to_level[1]
        # The matrix maps pixel centres of the crop to pixel centres of the image; this gives the halves.
        matrix = np.array(
            [
                [scale_x, 0, left * to_level[0] + scale_x / 2 - 0.5],
                [0, scale_y, top * to_level[1] + scale_y / 2 - 0.5],
            ]
        )
        cv2.warpAffine(
            level,
            matrix,
            (side, side),
            dst=crops[row],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=config.fill,
        )
    return crops


def _shrunk(image: Image, halvings_x: int, halvings_y: int) -> Image:
    """The image shrunk by 2^halvings on each axis. Each pixel is the average of the pixels that it covers."""
    height, width = image.shape[:2]
    size = (max(height >> halvings_y, 1), max(width >> halvings_x, 1))
    return resize(image, size)
