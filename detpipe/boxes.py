"""All box operations: IoU, NMS, box voting, clipping and deltas, for numpy arrays and (`..._tensors`) for torch.

N, M: numbers of boxes. A box is x1 y1 x2 y2, float32, pixels, a half-open rectangle: width = x2 - x1.

One exception: `proposals/selective_search/near_duplicates.py` compares an IoU with 4 / 5 in integers, because a
compiled function can only call functions of its own file (see `jit.py`).

torch is imported inside the functions that need it. The import takes seconds, and worker processes that only propose
regions do not need it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

from detpipe.structures import Float32Array, Int64Array

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""Upper limit on dw and dh in `decode`, so that exp can't overflow (Detectron's limit)."""

FIRST_PART = 2
"""NMS that is to keep `most` boxes looks at this many times `most` boxes first, then at twice as many."""

VOTED_AT_ONCE = 256
"""Number of kept boxes in one step of `vote`. It bounds the memory for images with many boxes, such as tiled ones."""


def area(boxes: Float32Array) -> Float32Array:
    """Area of each box in square pixels. (N, 4) -> (N,) float32; N = 0 gives (0,)."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), dtype=np.float32)


def clip(boxes: Float32Array, image_size: tuple[int, int]) -> Float32Array:
    """Clip boxes to the image. (N, 4), (height, width) -> (N, 4); a box outside the image becomes empty."""
    height, width = image_size
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(boxes, np.float32(0), limits).astype(np.float32, copy=False)


def intersection(a: Float32Array, b: Float32Array) -> Float32Array:
    """Area of the intersection of each pair. (N, 4), (M, 4) -> (N, M) float32; N = 0 or M = 0 gives an empty matrix."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    width_height = np.clip(bottom_right - top_left, 0, None)
    return np.asarray(width_height[..., 0] * width_height[..., 1], dtype=np.float32)


def iou(a: Float32Array, b: Float32Array) -> Float32Array:
    """Intersection over union of each pair. (N, 4), (M, 4) -> (N, M) float32 in [0, 1]; 0 for two empty boxes."""
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - shared
    ratio: Float32Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def overlap_of_first(a: Float32Array, b: Float32Array) -> Float32Array:
    """Intersection over the area of `a`: COCO's overlap with a crowd. (N, 4), (M, 4) -> (N, M) float32 in [0, 1].

    An empty box in `a` gives 0.
    """
    shared = intersection(a, b)
    own = np.broadcast_to(area(a)[:, None], shared.shape)
    ratio: Float32Array = np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)
    return ratio


def rank(boxes: Float32Array, scores: Float32Array) -> Int64Array:
    """Indices by descending score, ties by x1 y1 x2 y2, independent of the input order. (N, 4), (N,) -> (N,) int64."""
    keys = (boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], -scores.astype(np.float64))
    return np.lexsort(keys).astype(np.int64)


def nms(boxes: Float32Array, scores: Float32Array, threshold: float) -> Int64Array:
    """Greedy non-maximum suppression: drops boxes whose IoU with a kept box of higher score exceeds the threshold.

    (N, 4), (N,) -> (kept,) int64, indices by descending score, ties by the box; N = 0 gives (0,).
    """
    import torch

    order = rank(boxes, scores)
    kept = nms_tensors(torch.from_numpy(np.ascontiguousarray(boxes[order])), threshold)
    return np.asarray(order[kept.numpy()], dtype=np.int64)


def vote(boxes: Float32Array, scores: Float32Array, kept: Int64Array, at_least: float) -> Float32Array:
    """Box voting: the mean of all boxes whose IoU with a kept box is >= at_least, weighted by score.

    (N, 4), (N,), (M,) int64 indices from NMS -> (M, 4). The mean includes the kept box. If all weights are 0, the box
    is not changed (Gidaris & Komodakis 2015).
    """
    means = np.empty((len(kept), 4), dtype=np.float32)
    for start in range(0, len(kept), VOTED_AT_ONCE):
        part = kept[start : start + VOTED_AT_ONCE]
        weights = np.where(iou(boxes[part], boxes) >= at_least, scores, 0).astype(np.float64)
        weights[np.arange(len(part)), part] = np.maximum(scores[part], 1e-12)
        means[start : start + len(part)] = (weights @ boxes) / weights.sum(axis=1, keepdims=True)
    return means


def distinct(boxes: Float32Array, step: float) -> Int64Array:
    """Indices of the boxes without duplicates on a grid of `step` pixels (Fast R-CNN's DEDUP_BOXES).

    Boxes that round to the same grid points are duplicates; the first one is kept. (N, 4), step > 0 -> (<= N,) int64,
    ascending; N = 0 gives (0,).
    """
    _, first = np.unique(np.round(boxes / step), axis=0, return_index=True)
    return np.sort(first).astype(np.int64)


def encode(boxes: Float32Array, targets: Float32Array) -> Float32Array:
    """Deltas that transform each box to its target (R-CNN, Girshick et al. 2014, appendix C, eq. 6-9).

    (N, 4), (N, 4) -> (N, 4): dx and dy relative to the width and height of the box, dw and dh as log ratios.
    Raises ValueError for an empty box or target, for which deltas are undefined.
    """
    if len(boxes) and min(float(area(boxes).min()), float(area(targets).min())) <= 0:
        raise ValueError("encode: expected boxes and targets with an area, got an empty one; drop it")
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    target_size, target_centre = targets[:, 2:] - targets[:, :2], (targets[:, 2:] + targets[:, :2]) / 2
    deltas = np.concatenate([(target_centre - centre) / size, np.log(target_size / size)], axis=1)
    return np.asarray(deltas, dtype=np.float32)


def decode(boxes: Float32Array, deltas: npt.NDArray[np.floating]) -> Float32Array:
    """Apply deltas to boxes: the inverse of `encode` (R-CNN, appendix C, eq. 1-4).

    (N, 4), (N, 4) -> (N, 4). dw and dh are limited to MAX_LOG_SCALE. The result is not clipped to the image.
    """
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    new_centre = centre + deltas[:, :2] * size
    new_size = size * np.exp(np.minimum(deltas[:, 2:], MAX_LOG_SCALE))
    return np.concatenate([new_centre - new_size / 2, new_centre + new_size / 2], axis=1).astype(np.float32)


def encode_tensors(boxes: Tensor, targets: Tensor) -> Tensor:
    """`encode` in torch, differentiable: (N, 4), (N, 4) -> (N, 4). Boxes and targets must not be empty."""
    import torch

    size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    target_size, target_centre = targets[..., 2:] - targets[..., :2], (targets[..., 2:] + targets[..., :2]) / 2
    return torch.cat([(target_centre - centre) / size, torch.log(target_size / size)], dim=-1)


def decode_tensors(boxes: Tensor, deltas: Tensor) -> Tensor:
    """`decode` in torch, differentiable: (..., 4), (..., 4) -> (..., 4)."""
    import torch

    size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    new_centre = centre + deltas[..., :2] * size
    new_size = size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE))
    return torch.cat([new_centre - new_size / 2, new_centre + new_size / 2], dim=-1)


def area_tensors(boxes: Tensor) -> Tensor:
    """`area` in torch, differentiable: (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip_tensors(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`clip` in torch, differentiable: (..., 4), (height, width) -> (..., 4)."""
    import torch

    height, width = image_size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def iou_tensors(a: Tensor, b: Tensor) -> Tensor:
    """`iou` in torch: (N, 4), (M, 4) -> (N, M) in [0, 1]. An empty box has IoU 0. Not differentiable.

    torchvision's box_iou is several times slower on a CPU, because it computes with pairs of coordinates.
    """
    first, second = a.t().contiguous()[:, :, None], b.t().contiguous()
    shared = _shared(first, second)
    return _ratio(shared, (_area(first) + _area(second)).sub_(shared))


def paired_iou_tensors(a: Tensor, b: Tensor) -> Tensor:
    """The IoU of row i of `a` with row i of `b`: (N, 4), (N, 4) -> (N,) in [0, 1]. An empty box has IoU 0.

    Not differentiable.
    """
    first, second = a.t().contiguous(), b.t().contiguous()
    shared = _shared(first, second)
    return _ratio(shared, (_area(first) + _area(second)).sub_(shared))


def overlap_of_first_tensors(a: Tensor, b: Tensor) -> Tensor:
    """`overlap_of_first` in torch: (N, 4), (M, 4) -> (N, M) in [0, 1]. Not differentiable."""
    first, second = a.t().contiguous()[:, :, None], b.t().contiguous()
    return _ratio(_shared(first, second), _area(first))


def nms_tensors(boxes: Tensor, threshold: float, most: int | None = None) -> Tensor:
    """`nms` in torch for boxes by descending score: (N, 4) -> (kept,) int64, ascending; N = 0 gives (0,).

    most: only the first `most` indices are returned. Then the last boxes are often not looked at.
    """
    import torch
    from torchvision.ops import nms as torchvision_nms

    if most is not None:
        # A box is kept or dropped by the boxes before it alone, so the first ones may be enough.
        count = FIRST_PART * most
        while count < len(boxes):
            first = nms_tensors(boxes[:count], threshold)
            if len(first) >= most:
                return first[:most]
            count *= 2
        return nms_tensors(boxes, threshold)[:most]
    # Descending ranks replace the scores, so that torchvision's sort can't change the order of ties.
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
    # The threshold is rounded to float32 like the IoU; otherwise an IoU of exactly 0.3 would exceed 0.3.
    kept: Tensor = torchvision_nms(boxes, ranks, float(np.float32(threshold)))
    return kept


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """Area of the intersection of boxes as coordinates: (4, ...), (4, ...) -> (...), a new tensor."""
    import torch

    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    return width.mul_(height)


def _area(coordinates: Tensor) -> Tensor:
    x1, y1, x2, y2 = coordinates.unbind()
    return (x2 - x1) * (y2 - y1)


def _ratio(shared: Tensor, whole: Tensor) -> Tensor:
    """shared / whole, in place in both. Where `whole` is not positive, `shared` is 0, and so is the ratio."""
    import torch

    return shared.div_(whole.clamp_(min=torch.finfo(whole.dtype).tiny))
