"""From scored regions to detections: score threshold, class-wise box regression, class-wise NMS, top detections.

R: regions of one image. K: classes. (R-CNN, Girshick et al. 2014, section 2.2.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from detpipe import boxes as geometry
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.settings import DetectConfig, Duplicates
from detpipe.structures import Detections, Float32Array, Image, Int64Array

Item = TypeVar("Item")
Result = TypeVar("Result")

NO_DETECTIONS = Detections(
    np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
)
"""The result for an image without regions, or one that cannot be read."""


@dataclass(frozen=True, eq=False)
class ScoredRegions:
    """The scores of R regions.

    probabilities: (R, K + 1) float32; column 0 is background. deltas: (R, K, 4) float32; None without box regression.
    boxes: the regions (R, 4) if they are not the requested ones, because the network proposes regions itself.
    proposals: the number of regions that are proposals, the first ones; None: all. The others are refined regions.
    best: (R,) float32, the probability that the region is the best one of its object; None if it is not used. In the
    result of a scorer it is already a factor of the class probabilities, but not of the background's.
    """

    probabilities: Float32Array
    deltas: Float32Array | None
    boxes: Float32Array | None = None
    proposals: int | None = None
    best: Float32Array | None = None

    def first(self, k: int) -> ScoredRegions:
        """The scores of the first k regions, or of all if there are fewer."""
        deltas, best = (None if one is None else one[:k] for one in (self.deltas, self.best))
        return ScoredRegions(self.probabilities[:k], deltas, best=best)

    def of(self, rows: Int64Array) -> ScoredRegions:
        """The scores of some rows."""
        deltas, best = (None if one is None else one[rows] for one in (self.deltas, self.best))
        return ScoredRegions(self.probabilities[rows], deltas, best=best)

    def with_more(self, boxes: Float32Array, more: Float32Array, scored: ScoredRegions) -> ScoredRegions:
        """These scores, of `boxes` (R, 4), followed by the scores of `more` (S, 4): R + S regions."""
        deltas = None
        if self.deltas is not None and scored.deltas is not None:
            deltas = np.concatenate([self.deltas, scored.deltas])
        probabilities = np.concatenate([self.probabilities, scored.probabilities])
        return ScoredRegions(probabilities, deltas, np.concatenate([boxes, more]), proposals=len(boxes))


def moved_by_best(boxes: Float32Array, scored: ScoredRegions, image_size: tuple[int, int]) -> Float32Array:
    """Regions (R, 4) moved by the deltas of their most probable class, and clipped. A box that became empty stays."""
    if scored.deltas is None:
        return boxes
    best = scored.probabilities[:, 1:].argmax(axis=1)
    moved = geometry.clip(geometry.decode(boxes, scored.deltas[np.arange(len(boxes)), best]), image_size)
    return np.where((geometry.area(moved) > 0)[:, None], moved, boxes)


def seen_from(boxes: Float32Array, moved_boxes: Float32Array, deltas: Float32Array | None) -> Float32Array:
    """Convert deltas of `moved_boxes` to deltas of `boxes` with the same results.

    (R, 4), (R, 4), (R, K, 4) -> (R, K, 4). A box that would lose its area keeps its position.
    """
    assert deltas is not None
    columns = []
    for label in range(deltas.shape[1]):
        targets = geometry.decode(moved_boxes, deltas[:, label])
        has_area = (geometry.area(targets) > 0)[:, None]
        columns.append(geometry.encode(boxes, np.where(has_area, targets, moved_boxes)))
    return np.stack(columns, axis=1)


class Scorer(Protocol):
    """Scores regions: by their crops (R-CNN), by features, or by one pass over the image (Fast R-CNN)."""

    @property
    def network(self) -> nn.Module:
        """The network."""
        ...

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """Scores of the regions (R, 4) of each image (H, W, 3), in order. R may be 0. Images are read ahead.

        A network that proposes regions scores its own if R is 0. The same images in the same order give the same
        numbers.
        """
        ...


def refuse_best_box(config: DetectConfig) -> None:
    """Raise ClassifierError for `detect.fast_rcnn.duplicates=learned` or both: the network has no such prediction."""
    duplicates = config.fast_rcnn.duplicates
    if duplicates is not Duplicates.nms:
        raise ClassifierError(
            f"detect.fast_rcnn.duplicates={duplicates.value}: expected a network of head=fast_rcnn or "
            "multibox_fast_rcnn with head.attention above 0, got one that does not predict the best box; use "
            "detect.fast_rcnn.duplicates=nms"
        )


def scored_regions(
    scorer: Scorer, images: Iterable[tuple[Image, Float32Array]]
) -> Iterator[tuple[Float32Array, ScoredRegions, tuple[int, int]]]:
    """The scored regions (R, 4) of each image, their scores, and the image's (height, width), in order.

    Images are read ahead. Only regions and sizes are kept until the scores are there, not the images.
    """
    waiting: list[tuple[Float32Array, tuple[int, int]]] = []

    def recorded() -> Iterator[tuple[Image, Float32Array]]:
        for image, boxes in images:
            waiting.append((boxes, (image.shape[0], image.shape[1])))
            yield image, boxes

    for scored in scorer.score(recorded()):
        boxes, image_size = waiting.pop(0)
        yield boxes if scored.boxes is None else scored.boxes, scored, image_size


def of_readable(
    function: Callable[[Iterable[Item]], Iterator[Result]], items: Iterable[Item | None]
) -> Iterator[Result | None]:
    """Apply a function to the items of a stream that are not None. The result for a None is None; the order is kept.

    function: from a stream to one result per item. It may read ahead, also in another thread. No items give no results.
    """
    is_present: deque[bool] = deque()

    def present() -> Iterator[Item]:
        for item in items:
            is_present.append(item is not None)
            if item is not None:
                yield item

    for result in function(present()):
        while not is_present.popleft():
            yield None
        yield result
    yield from (None for _ in is_present)


def batches_of(images: Iterable[npt.NDArray[np.uint8]], size: int) -> Iterator[tuple[npt.NDArray[np.uint8], list[int]]]:
    """Split a stream of images' crops into batches of `size`. The last one may be smaller.

    Yields the crops, and the numbers of crops of the images begun since the previous batch, in order. An image without
    crops has 0. If such images come last, the last batch is empty.
    """
    parts: list[npt.NDArray[np.uint8]] = []
    held, counts = 0, []
    for crops in images:
        counts.append(len(crops))
        while len(crops):
            part, crops = crops[: size - held], crops[size - held :]
            parts.append(part)
            held += len(part)
            if held == size:
                yield np.concatenate(parts), counts
                parts, held, counts = [], 0, []
    if held:
        yield np.concatenate(parts), counts
    elif counts:
        yield np.zeros((0, 0, 0, 3), dtype=np.uint8), counts


@dataclass(frozen=True, eq=False)
class SelectedOfClass:
    """The selection of one class, before the limit of detections.

    rows: (M,) the regions with a sufficient score whose box has an area. boxes: (M, 4) moved by box regression and
    clipped. kept: (N,) indices into rows that NMS kept, highest score first. placed: (N, 4) their boxes after box
    voting.
    """

    rows: Int64Array
    boxes: Float32Array
    kept: Int64Array
    placed: Float32Array


@dataclass(frozen=True, eq=False)
class Selection:
    """The detections of one image (D), and where each comes from.

    classes: the selection of each class, 1..K. order: (D,) for each detection its index among the kept boxes of all
    classes, which are counted from class to class.
    """

    detections: Detections
    classes: list[SelectedOfClass]
    order: Int64Array


def select_detections(
    boxes: Float32Array, scored: ScoredRegions, image_size: tuple[int, int], config: DetectConfig
) -> Detections:
    """The detections of one image from its regions (R, 4) and their scores: at most max_detections, best first.

    For each class, regions with a score of at least score_floor are moved by the deltas of the class, clipped, and
    suppressed by NMS, unless the network itself finds duplicates. R = 0 gives none.
    """
    return select(boxes, scored, image_size, config).detections


def select(boxes: Float32Array, scored: ScoredRegions, image_size: tuple[int, int], config: DetectConfig) -> Selection:
    """As `select_detections`, with where each detection comes from."""
    found: list[tuple[Float32Array, Float32Array, int]] = []
    classes: list[SelectedOfClass] = []
    for label in range(1, scored.probabilities.shape[1]):
        scores = scored.probabilities[:, label]
        rows = np.flatnonzero(scores >= config.score_floor)
        moved = boxes[rows] if scored.deltas is None else geometry.decode(boxes[rows], scored.deltas[rows, label - 1])
        moved = geometry.clip(moved, image_size)
        solid = geometry.area(moved) > 0
        rows, moved = rows[solid], moved[solid]
        kept = geometry.nms(moved, scores[rows], config.suppressed_above)
        placed = moved[kept]
        if config.vote_iou is not None:
            placed = geometry.vote(moved, scores[rows], kept, config.vote_iou)
        found.append((placed, scores[rows[kept]], label))
        classes.append(SelectedOfClass(rows, moved, kept, placed))
    detections, order = _best_of(found, config.max_detections)
    return Selection(detections, classes, order)


def best_of(found: Sequence[tuple[Float32Array, Float32Array, int]], limit: int) -> Detections:
    """The `limit` best of (boxes, scores, label) lists; ties are ordered by box, then label. [] gives none."""
    return _best_of(found, limit)[0]


def _best_of(found: Sequence[tuple[Float32Array, Float32Array, int]], limit: int) -> tuple[Detections, Int64Array]:
    """The result of `best_of`, and the index of each detection in the joined lists."""
    boxes = np.concatenate([boxes for boxes, _, _ in found] or [np.zeros((0, 4), dtype=np.float32)])
    scores = np.concatenate([scores for _, scores, _ in found] or [np.zeros(0, dtype=np.float32)])
    labels = np.concatenate(
        [np.full(len(b), label, dtype=np.int64) for b, _, label in found] or [np.zeros(0, np.int64)]
    )
    order = geometry.rank(boxes, scores)[:limit]
    detections = Detections(np.ascontiguousarray(boxes[order]), np.ascontiguousarray(scores[order]), labels[order])
    return detections, order
