"""A cascade (Viola & Jones 2001, section 4): a cheap look drops most of the background, a dear one scores what is left.

The cheap look is the same classifier on smaller crops: nothing more is trained, and half the side is a quarter of the
work. R: regions of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch import nn

from detpipe.classify.detect import ScoredRegions, Scorer
from detpipe.structures import Float32Array, Image, Int64Array


class CascadeScorer:
    """`first` looks at all regions of an image, `second` at the `keep` of them that are most likely an object."""

    def __init__(self, first: Scorer, second: Scorer, *, keep: int) -> None:
        self._first, self._second, self._keep = first, second, keep

    @property
    def network(self) -> nn.Module:
        """That of the second look."""
        return self._second.network

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. What the first look dropped is background for certain."""
        kept: list[tuple[int, Int64Array]] = []
        for scored in self._second.score(self._survivors(images, kept)):
            yield in_their_places(scored, *kept.pop(0))

    def _survivors(
        self, images: Iterable[tuple[Image, Float32Array]], kept: list[tuple[int, Int64Array]]
    ) -> Iterator[tuple[Image, Float32Array]]:
        waiting: list[tuple[Image, Float32Array]] = []

        def noted() -> Iterator[tuple[Image, Float32Array]]:
            for one in images:
                waiting.append(one)
                yield one

        for scored in self._first.score(noted()):
            image, boxes = waiting.pop(0)
            rows = most_likely(scored, self._keep)
            kept.append((len(boxes), rows))
            yield image, boxes[rows]


def most_likely(scored: ScoredRegions, keep: int) -> Int64Array:
    """The places of the `keep` regions with the least background, ascending: (<= keep,) int64. R = 0 gives (0,)."""
    order = np.argsort(scored.probabilities[:, 0], kind="stable")[:keep]
    return np.sort(order).astype(np.int64)


def in_their_places(scored: ScoredRegions, count: int, rows: Int64Array) -> ScoredRegions:
    """Scores of `rows` among `count` regions, the others being background, not moved."""
    probabilities = np.zeros((count, scored.probabilities.shape[1]), dtype=np.float32)
    probabilities[:, 0] = 1
    probabilities[rows] = scored.probabilities
    if scored.deltas is None:
        return ScoredRegions(probabilities, None)
    deltas = np.zeros((count, *scored.deltas.shape[1:]), dtype=np.float32)
    deltas[rows] = scored.deltas
    return ScoredRegions(probabilities, deltas)
