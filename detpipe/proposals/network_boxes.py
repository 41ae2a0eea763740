"""The raw boxes of a detector as proposals."""

from __future__ import annotations

import numpy as np

from detpipe.boxes import clip, nms, rank
from detpipe.proposals.proposer import ranked
from detpipe.structures import Float32Array, Proposals

ANY_NUMBER = 1 << 16
"""`max_threads` of a proposer whose threads share a network."""
_MOST = 30_000
"""Boxes that reach non-maximum suppression, the best first; a network at 640 pixels has 8,400 to 25,200."""


def as_proposals(
    boxes: Float32Array,
    scores: Float32Array,
    image_size: tuple[int, int],
    max_proposals: int | None,
    *,
    nms_iou: float,
) -> Proposals:
    """The best boxes after clipping and non-maximum suppression over all classes: a proposal has no class.

    boxes: (N, 4) float32 in any order, not clipped. scores: (N,) float32. image_size: (height, width). N = 0 gives no
    proposals. nms_iou: 1 keeps all but equal boxes.
    """
    boxes = clip(boxes, image_size) + np.float32(0)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes, scores = boxes[has_area], scores[has_area]
    best = rank(boxes, scores)[:_MOST]
    boxes, scores = boxes[best], scores[best]
    if nms_iou < 1:
        kept = nms(boxes, scores, nms_iou)
        boxes, scores = boxes[kept], scores[kept]
    return ranked(boxes, scores, image_size, max_proposals)
