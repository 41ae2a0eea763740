"""From scored regions to detections: class-wise box regression, score floor, class-wise NMS, the best of an image.

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
from detpipe.classify.settings import DetectConfig
from detpipe.structures import Detections, Float32Array, Image, Int64Array

Item = TypeVar("Item")
Result = TypeVar("Result")

NO_DETECTIONS = Detections(
    np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
)
"""Of an image that can't be read, for instance."""


@dataclass(frozen=True, eq=False)
class ScoredRegions:
    """probabilities: (R, K + 1) float32, column 0 the background. deltas: (R, K, 4) float32, or None.

    boxes: the regions (R, 4), where they are not those that were asked for: a network may choose them itself.
    """

    probabilities: Float32Array
    deltas: Float32Array | None
    boxes: Float32Array | None = None

    def first(self, k: int) -> ScoredRegions:
        """Those of the first k regions, or of all where there are fewer."""
        return ScoredRegions(self.probabilities[:k], None if self.deltas is None else self.deltas[:k])

    def of(self, rows: Int64Array) -> ScoredRegions:
        """Those of some rows."""
        return ScoredRegions(self.probabilities[rows], None if self.deltas is None else self.deltas[rows])

    def with_more(self, boxes: Float32Array, more: Float32Array, scored: ScoredRegions) -> ScoredRegions:
        """These of `boxes` (R, 4), then those of `more` (S, 4): the scores of R + S regions."""
        deltas = None
        if self.deltas is not None and scored.deltas is not None:
            deltas = np.concatenate([self.deltas, scored.deltas])
        probabilities = np.concatenate([self.probabilities, scored.probabilities])
        return ScoredRegions(probabilities, deltas, np.concatenate([boxes, more]))


def moved_by_best(boxes: Float32Array, scored: ScoredRegions, image_size: tuple[int, int]) -> Float32Array:
    """Each region (R, 4) where its most likely class moves it, within the image; where nothing were left, as it was."""
    if scored.deltas is None:
        return boxes
    best = scored.probabilities[:, 1:].argmax(axis=1)
    moved = geometry.clip(geometry.decode(boxes, scored.deltas[np.arange(len(boxes)), best]), image_size)
    return np.where((geometry.area(moved) > 0)[:, None], moved, boxes)


class Scorer(Protocol):
    """What gives regions their scores: by their crops (R-CNN), or from one pass over the image (Fast R-CNN)."""

    @property
    def network(self) -> nn.Module:
        """The network at work."""
        ...

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """Scores of the regions (R, 4) of each image (H, W, 3), in order; R may be 0. Images are read ahead.

        A network that proposes looks at its own regions where it is given none.

        The same images in the same order give the same numbers.
        """
        ...


def scored_regions(
    scorer: Scorer, images: Iterable[tuple[Image, Float32Array]]
) -> Iterator[tuple[Float32Array, ScoredRegions, tuple[int, int]]]:
    """The regions (R, 4) of each image that were scored, their scores, and the image's (height, width), in order.

    Images are read ahead; no image is held until its scores are there, only its regions and size.
    """
    shown: list[tuple[Float32Array, tuple[int, int]]] = []

    def noted() -> Iterator[tuple[Image, Float32Array]]:
        for image, boxes in images:
            shown.append((boxes, (image.shape[0], image.shape[1])))
            yield image, boxes

    for scored in scorer.score(noted()):
        boxes, image_size = shown.pop(0)
        yield boxes if scored.boxes is None else scored.boxes, scored, image_size


def of_readable(
    function: Callable[[Iterable[Item]], Iterator[Result]], items: Iterable[Item | None]
) -> Iterator[Result | None]:
    """The results of a function that gives one for each item of a stream, in order; None where the item is None.

    function: sees only the items that are not None; it may read ahead, in another thread, too. No items give none.
    """
    there: deque[bool] = deque()

    def present() -> Iterator[Item]:
        for item in items:
            there.append(item is not None)
            if item is not None:
                yield item

    for result in function(present()):
        while not there.popleft():
            yield None
        yield result
    yield from (None for _ in there)


def batches_of(images: Iterable[npt.NDArray[np.uint8]], size: int) -> Iterator[tuple[npt.NDArray[np.uint8], list[int]]]:
    """Cut a stream of images' crops into batches of `size`, the last one shorter.

    Yields the crops and, for each image that was taken up since the batch before, its number of crops, in order.
    Images without crops have 0; where they come last, they come with an empty batch.
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


def select_detections(
    boxes: Float32Array, scored: ScoredRegions, image_size: tuple[int, int], config: DetectConfig
) -> Detections:
    """The detections of one image: (R, 4) regions and their scores -> at most max_detections, best first.

    R = 0 gives none. For each class: the regions above the floor, moved by the class's own deltas, clipped, and
    thinned by NMS.
    """
    found: list[tuple[Float32Array, Float32Array, int]] = []
    for label in range(1, scored.probabilities.shape[1]):
        scores = scored.probabilities[:, label]
        rows = np.flatnonzero(scores >= config.score_floor)
        moved = boxes[rows] if scored.deltas is None else geometry.decode(boxes[rows], scored.deltas[rows, label - 1])
        moved = geometry.clip(moved, image_size)
        solid = geometry.area(moved) > 0
        rows, moved = rows[solid], moved[solid]
        kept = geometry.nms(moved, scores[rows], config.nms_iou)
        placed = moved[kept]
        if config.vote_iou is not None:
            placed = geometry.vote(moved, scores[rows], kept, config.vote_iou)
        found.append((placed, scores[rows[kept]], label))
    return best_of(found, config.max_detections)


def best_of(found: Sequence[tuple[Float32Array, Float32Array, int]], limit: int) -> Detections:
    """The `limit` best of (boxes, scores, label) lists, ties by the box, then by the label. Nothing gives none."""
    boxes = np.concatenate([boxes for boxes, _, _ in found] or [np.zeros((0, 4), dtype=np.float32)])
    scores = np.concatenate([scores for _, scores, _ in found] or [np.zeros(0, dtype=np.float32)])
    labels = np.concatenate(
        [np.full(len(b), label, dtype=np.int64) for b, _, label in found] or [np.zeros(0, np.int64)]
    )
    order = geometry.rank(boxes, scores)[:limit]
    return Detections(np.ascontiguousarray(boxes[order]), np.ascontiguousarray(scores[order]), labels[order])
