"""From scored regions to detections in the graph, as in `classify/detect.py`: NMS per class, voting, the best ones.

R: regions. K: classes. N: detections.
"""

from __future__ import annotations

import numpy as np

from detpipe.boxes import MAX_LOG_SCALE
from detpipe.classify.export.onnx_graph import Graph, Value
from detpipe.classify.settings import DetectConfig

TINY_WEIGHT = 1e-12
"""Least weight of a detection in its own vote, as in `boxes.vote`."""


def decoded(graph: Graph, boxes: Value, deltas: Value) -> Value:
    """Deltas applied to boxes, as `boxes.decode`: (..., 4), (..., 4) -> (..., 4). Shapes are broadcast."""
    x1y1, x2y2 = boxes.part(0, 2, -1), boxes.part(2, 4, -1)
    size, centre = x2y2 - x1y1, (x2y2 + x1y1) * 0.5
    centre = centre + deltas.part(0, 2, -1) * size
    half = size * graph.op("Exp", deltas.part(2, 4, -1).at_most(MAX_LOG_SCALE)) * 0.5
    return graph.concat([centre - half, centre + half], axis=-1)


def limits(graph: Graph, height: Value, width: Value) -> Value:
    """(4,) float32: the largest x1, y1, x2, y2 of a box on an image."""
    size = graph.shape(width, height, width, height)
    return size.to(np.float32)


def clipped(boxes: Value, most: Value) -> Value:
    """Boxes (..., 4) clipped to the image with these limits (4,)."""
    return boxes.at_least(0.0).at_most(most)


def area(boxes: Value) -> Value:
    """(..., 4) -> (...)."""
    sides = boxes.part(2, 4, -1) - boxes.part(0, 2, -1)
    return (sides.part(0, 1, -1) * sides.part(1, 2, -1)).squeeze(-1)


def suppressed(graph: Graph, boxes: Value, scores: Value, iou: float, most: Value | int) -> tuple[Value, Value]:
    """Non-maximum suppression in each of B sets: (B, R, 4), (B, R) -> the kept pairs (set, region), (M,) int64 each.

    Scores below 0 are left out. most: limit of each set. Pairs are ordered by set, then by descending score.
    """
    # Opposite corners may have any order, so the order x, y is as good as y, x.
    found = graph.op(
        "NonMaxSuppression",
        boxes,
        scores.unsqueeze(1),
        most.reshape(1) if isinstance(most, Value) else graph.value([most], np.int64),
        graph.value([iou], np.float32),
        graph.value([-0.5], np.float32),
        dtype=np.int64,
    )
    return found.take(0, 1), found.take(2, 1)


def top(graph: Graph, values: Value, count: Value | int) -> tuple[Value, Value]:
    """The `count` largest of (n,), or all: values and indices, descending; the first of equal values comes first."""
    most = graph.value(count, np.int64).at_most(values.size(0))
    found = graph.ops("TopK", values, most.reshape(1), dtypes=[None, np.int64], axis=0)
    return found[0], found[1]


def iou(graph: Graph, a: Value, b: Value) -> Value:
    """Intersection over union: (..., 4), (..., 4) -> (...), shapes are broadcast; 0 for two empty boxes."""
    del graph
    corner = a.part(0, 2, -1).at_least(b.part(0, 2, -1))
    sides = (a.part(2, 4, -1).at_most(b.part(2, 4, -1)) - corner).at_least(0.0)
    shared = (sides.part(0, 1, -1) * sides.part(1, 2, -1)).squeeze(-1)
    union = area(a) + area(b) - shared
    return shared / union.at_least(float(np.finfo(np.float32).tiny))


def moved_by_best(graph: Graph, boxes: Value, probabilities: Value, deltas: Value, most: Value) -> Value:
    """Regions (R, 4) moved by the deltas of their most probable class, as `detect.moved_by_best`."""
    by_class = probabilities.part(1, np.iinfo(np.int64).max, 1)
    best = graph.op("ArgMax", by_class, axis=1, keepdims=1, dtype=np.int64)
    own = graph.op("GatherND", deltas, best, batch_dims=1)
    moved = clipped(decoded(graph, boxes, own), most)
    return graph.where((area(moved) > 0.0).unsqueeze(1), moved, boxes)


def select(
    graph: Graph, boxes: Value, probabilities: Value, image_limits: Value, config: DetectConfig
) -> tuple[Value, Value, Value]:
    """The detections of one image, as `detect.select`: at most max_detections, best first.

    boxes: (R, K, 4), moved by the deltas of each class, or (R, 1, 4) without box regression. probabilities: (R, K + 1).
    Returns boxes (N, 4), scores (N,) and labels (N,) int64. R must not be 0: add a region with probabilities of 0.
    """
    scores = probabilities.part(1, np.iinfo(np.int64).max, 1).transpose(1, 0)  # (K, R)
    boxes = clipped(boxes, image_limits).transpose(1, 0, 2)
    shape = graph.concat([graph.op("Shape", scores, dtype=np.int64), graph.value([4], np.int64)], axis=0)
    boxes = graph.op("Expand", boxes, shape)  # (K, R, 4)
    used = (scores >= config.score_floor) & (area(boxes) > 0.0)
    scores = graph.where(used, scores, -1.0)
    classes, rows = suppressed(graph, boxes, scores, config.suppressed_above, scores.size(1))
    pairs = graph.concat([classes.unsqueeze(1), rows.unsqueeze(1)], axis=1)
    best, order = top(graph, graph.op("GatherND", scores, pairs, dtype=scores.dtype), config.max_detections)
    pairs = pairs.take(order)
    labels = classes.take(order)
    kept = graph.op("GatherND", boxes, pairs)  # (N, 4)
    if config.vote_iou is not None:
        kept = voted(graph, kept, best, boxes.take(labels), scores.take(labels), config.vote_iou)
    return kept, best, labels + 1


def voted(graph: Graph, kept: Value, best: Value, boxes: Value, scores: Value, at_least: float) -> Value:
    """Box voting, as `boxes.vote`: kept (N, 4) and their scores, all boxes of their classes (N, R, 4), (N, R).

    Returns (N, 4). Boxes with a score below 0 don't vote.
    """
    near = (iou(graph, kept.unsqueeze(1), boxes) >= at_least) & (scores > 0.0)
    weights = graph.where(near, scores, 0.0)
    own = (best <= TINY_WEIGHT).to(np.float32) * TINY_WEIGHT
    weighted = graph.matmul(weights.unsqueeze(1), boxes).squeeze(1) + own.unsqueeze(1) * kept
    return weighted / (weights.total(1) + own.unsqueeze(1))
