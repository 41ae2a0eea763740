"""Inference of Fast R-CNN on the tiles of large images: each tile is scored as an image of its own.

Regions that are given are each scored in the window that shows them best. A network that proposes regions does so in
every window; what it finds in each is then joined. R: regions of one image. K: classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions, Scorer, moved_by_best, seen_from
from detpipe.structures import Float32Array, Image, Int64Array
from detpipe.tiles import TilesConfig, Windows, in_turn

COVERED = 0.7
"""A box that its tile cuts loses against an uncut box of another window that covers at least this share of it."""

SCORE_SHARE = 0.5
"""The uncut box must have at least this share of the cut box's score: a doubtful large box removes no certain one."""

AT_ONCE = 256
"""Number of cut boxes that are compared with all others together. It bounds the memory."""


@dataclass(frozen=True, eq=False)
class TiledImage:
    """An image whose windows are being scored.

    boxes: the given regions (R, 4). rows: for each scored window its index, and the rows of the regions in it; None if
    the network proposes. scored: the results so far.
    """

    windows: Windows
    boxes: Float32Array
    rows: list[tuple[int, Int64Array | None]]
    scored: list[ScoredRegions] = field(default_factory=list)


class TiledScorer:
    """Scores the tiles of images with another scorer; see `Scorer`.

    proposes: whether the network proposes regions for an image that comes without. score_floor: the smallest score of a
    detection; boxes with lower scores are not compared.

    With given regions, each row of a result belongs to the region in this row. A network that proposes gives the
    regions of all windows, the best of each window first, then the second best, and so on.
    """

    def __init__(self, scorer: Scorer, tiles: TilesConfig, *, proposes: bool, score_floor: float) -> None:
        self._scorer, self._tiles, self._proposes, self._score_floor = scorer, tiles, proposes, score_floor

    @property
    def network(self) -> nn.Module:
        """The network."""
        return self._scorer.network

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. The windows are views of the image: they take no memory of their own."""
        waiting: deque[TiledImage] = deque()

        def parts() -> Iterator[tuple[Image, Float32Array]]:
            for image, boxes in images:
                one = self._plan((image.shape[0], image.shape[1]), boxes)
                waiting.append(one)
                for index, rows in one.rows:
                    x1, y1, x2, y2 = one.windows.window(index)
                    own = boxes[:0] if rows is None else _moved(boxes[rows], -x1, -y1)
                    yield image[y1:y2, x1:x2], geometry.clip(own, (y2 - y1, x2 - x1))

        for scored in self._scorer.score(parts()):
            one = waiting[0]
            one.scored.append(scored)
            if len(one.scored) == len(one.rows):
                waiting.popleft()
                yield self._joined(one) if one.rows[0][1] is None else in_given_order(one)

    def _plan(self, image_size: tuple[int, int], boxes: Float32Array) -> TiledImage:
        windows = Windows.of(image_size, self._tiles)
        if not len(boxes):
            count = len(windows) if self._proposes else 1
            return TiledImage(windows, boxes, [(index, None) for index in range(count)])
        chosen = windows.of_boxes(boxes)
        return TiledImage(
            windows, boxes, [(int(index), np.flatnonzero(chosen == index)) for index in np.unique(chosen)]
        )

    def _joined(self, image: TiledImage) -> ScoredRegions:
        """The regions of all windows that are their own, in pixels of the image. Without windows' regions, R = 0."""
        if len(image.scored) == 1:
            return image.scored[0]
        parts, boxes, window_of = [], [], []
        for index, scored in enumerate(image.scored):
            found = _boxes_of(scored)
            x1, y1, x2, y2 = image.windows.window(index)
            best = moved_by_best(found, scored, (y2 - y1, x2 - x1))
            own = np.flatnonzero(image.windows.owns(index, _moved(best, x1, y1)))
            parts.append(scored.of(own))
            boxes.append(_moved(found[own], x1, y1))
            window_of.append(np.full(len(own), index, dtype=np.int64))
        order = in_turn([len(one) for one in boxes])
        deltas = [one.deltas for one in parts if one.deltas is not None]
        factors = [one.best for one in parts if one.best is not None]
        scored = ScoredRegions(
            np.concatenate([one.probabilities for one in parts])[order],
            np.concatenate(deltas)[order] if deltas else None,
            np.concatenate(boxes)[order],
            best=np.concatenate(factors)[order] if factors else None,
        )
        self._remove_parts(scored, np.concatenate(window_of)[order], image.windows)
        return scored

    def _remove_parts(self, scored: ScoredRegions, window_of: Int64Array, windows: Windows) -> None:
        """Set the scores of parts of objects to 0, in place: boxes that their tile cuts, and another window does not.

        For each class, the box after box regression decides. window_of: (R,) the window of each region.
        """
        regions = _boxes_of(scored)
        for label in range(1, scored.probabilities.shape[1]):
            scores = scored.probabilities[:, label]
            rows = np.flatnonzero((scores >= self._score_floor) & (scores > 0))
            boxes = regions[rows]
            if scored.deltas is not None:
                boxes = geometry.clip(geometry.decode(boxes, scored.deltas[rows, label - 1]), windows.image_size)
            cut = np.zeros(len(rows), dtype=np.bool_)
            for index in np.unique(window_of[rows]).tolist():
                own = window_of[rows] == index
                cut[own] = windows.cuts(index, boxes[own])
            whole = np.flatnonzero(~cut)
            for part in np.split(np.flatnonzero(cut), range(AT_ONCE, int(cut.sum()), AT_ONCE)):
                covered = geometry.overlap_of_first(boxes[part], boxes[whole]) >= COVERED
                other = window_of[rows[part]][:, None] != window_of[rows[whole]]
                sure = scores[rows[whole]] >= SCORE_SHARE * scores[rows[part]][:, None]
                scored.probabilities[rows[part[(covered & other & sure).any(axis=1)]], label] = 0


def in_given_order(image: TiledImage) -> ScoredRegions:
    """The scores of the given regions (R >= 1), in their order. Deltas refer to the whole regions.

    A region that no window contains was scored by the part that its window shows.
    """
    first = image.scored[0]
    probabilities = np.zeros((len(image.boxes), first.probabilities.shape[1]), dtype=np.float32)
    deltas = None
    if first.deltas is not None:
        deltas = np.zeros((len(image.boxes), *first.deltas.shape[1:]), dtype=np.float32)
    best = None if first.best is None else np.zeros(len(image.boxes), dtype=np.float32)
    for (index, rows), scored in zip(image.rows, image.scored, strict=True):
        assert rows is not None
        probabilities[rows] = scored.probabilities
        if deltas is not None and scored.deltas is not None:
            frame = np.array(image.windows.window(index), dtype=np.float32)
            deltas[rows] = of_whole_regions(image.boxes[rows], frame, scored.deltas)
        if best is not None and scored.best is not None:
            best[rows] = scored.best
    return ScoredRegions(probabilities, deltas, best=best)


def of_whole_regions(boxes: Float32Array, frame: Float32Array, deltas: Float32Array) -> Float32Array:
    """Convert deltas (R, K, 4) of the parts of regions (R, 4) inside a frame (4,) to deltas of the whole regions."""
    seen = np.concatenate([np.maximum(boxes[:, :2], frame[:2]), np.minimum(boxes[:, 2:], frame[2:])], axis=1)
    cut = np.flatnonzero((seen != boxes).any(axis=1) & (geometry.area(seen) > 0))
    changed = deltas.copy()
    changed[cut] = seen_from(boxes[cut], seen[cut], deltas[cut])
    return changed


def _boxes_of(scored: ScoredRegions) -> Float32Array:
    """The regions that a network proposed (R, 4); a network without proposals gives R = 0."""
    return np.zeros((0, 4), dtype=np.float32) if scored.boxes is None else scored.boxes


def _moved(boxes: Float32Array, x: int, y: int) -> Float32Array:
    return boxes + np.array([x, y, x, y], dtype=np.float32)
