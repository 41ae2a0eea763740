"""Which examples are in batch i: a pure function of (seed, i), so that a resumed training needs no state.

The random numbers of an image are a pure function of (seed, i, position). The position is the index of the image in
the whole batch, so the numbers do not depend on the number of processes.
"""

from __future__ import annotations

import numpy as np

from detpipe.structures import Int64Array


def plain_order(examples: int, *, batch_size: int, seed: int) -> BalancedOrder:
    """Batches from shuffled passes over all examples, whatever their labels. Raises ValueError for 0 examples."""
    return BalancedOrder(np.ones(examples, dtype=np.int64), batch_size=batch_size, fg_share=1.0, seed=seed)


def image_generator(seed: int, batch: int, position: int, *, stream: int = 0) -> np.random.Generator:
    """The random generator of one image of a batch; it is the same in every process.

    position: the index of the image in the whole batch, not in the part of one process. stream: 0 is used for
    augmentation. Any other random choice for the same image needs its own stream, or it would get the same numbers.
    """
    return np.random.default_rng((seed, batch, position, stream))


def evenly_spread(examples: int, most: int) -> Int64Array:
    """At most `most` indices, evenly spaced from the first example to the last, ascending; empty for 0 examples."""
    return np.unique(np.linspace(0, examples - 1, min(examples, most)).round().astype(np.int64))


class BalancedOrder:
    """Batches with a fixed share of foreground examples (R-CNN, section 2.3: 32 of 128).

    Foreground and background are each drawn in shuffled passes over all their examples. If there are no foreground
    examples, the batch has only background, and vice versa.
    """

    def __init__(self, labels: Int64Array, *, batch_size: int, fg_share: float, seed: int) -> None:
        """labels: (N,) int64, 0 is background. Raises ValueError for N = 0."""
        if not len(labels):
            raise ValueError("expected at least one example to train on, got none: has the training set no objects?")
        foreground, background = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
        n_foreground = round(batch_size * fg_share)
        if not len(foreground):
            n_foreground = 0
        elif not len(background):
            n_foreground = batch_size
        self._kinds = ((foreground, n_foreground, 0), (background, batch_size - n_foreground, 1))
        self._seed = seed
        self._passes: dict[tuple[int, int], Int64Array] = {}

    def __call__(self, batch: int) -> Int64Array:
        """Indices of the examples of a batch: (batch_size,) int64, foreground first."""
        return np.concatenate([self._take(kind, batch) for kind in self._kinds])

    def _take(self, kind: tuple[Int64Array, int, int], batch: int) -> Int64Array:
        pool, count, stream = kind
        positions = np.arange(batch * count, (batch + 1) * count)
        if not count:
            return positions
        passes, within = np.divmod(positions, len(pool))
        return np.concatenate(
            [pool[self._pass(stream, int(one), len(pool))[within[passes == one]]] for one in np.unique(passes)]
        )

    def _pass(self, stream: int, number: int, size: int) -> Int64Array:
        """The order of one pass. The two newest are cached, because a batch can end one pass and begin the next."""
        order = self._passes.get((stream, number))
        if order is None:
            # Another thread may drop the entry from the cache, so the local variable is returned.
            order = np.random.default_rng((self._seed, stream, number)).permutation(size)
            self._passes.pop((stream, number - 2), None)
            self._passes[stream, number] = order
        return order
