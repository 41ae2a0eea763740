"""Which examples make up batch number i: a pure function of (seed, i), so that a resumed training needs no state.

The random numbers of an image are a pure function of (seed, i, turn), too. The turn is the image's place in the whole
batch, so they do not depend on the number of processes.
"""

from __future__ import annotations

import numpy as np

from detpipe.structures import Int64Array


def plain_order(examples: int, *, batch_size: int, seed: int) -> BalancedOrder:
    """Batches of whole passes over all examples, without regard to their labels. Raises ValueError for none."""
    return BalancedOrder(np.ones(examples, dtype=np.int64), batch_size=batch_size, fg_share=1.0, seed=seed)


def image_generator(seed: int, batch: int, turn: int, *, stream: int = 0) -> np.random.Generator:
    """The random numbers of one image of a batch, the same whichever process makes it.

    turn: the image's place in the whole batch, not in the part that one process makes. stream: 0 decides how the image
    is shown; another draw in the same turn takes a stream of its own, else it would repeat the same numbers.
    """
    return np.random.default_rng((seed, batch, turn, stream))


def evenly_spread(examples: int, most: int) -> Int64Array:
    """Places of no more than `most` examples, evenly from the first to the last, ascending; none of none."""
    return np.unique(np.linspace(0, examples - 1, min(examples, most)).round().astype(np.int64))


class BalancedOrder:
    """Batches with a fixed share of foreground (R-CNN, section 2.3: 32 of 128), each kind in passes of its own.

    A pass goes once over all examples of a kind in an order of its own; a kind of which there are none leaves its
    place to the other.
    """

    def __init__(self, labels: Int64Array, *, batch_size: int, fg_share: float, seed: int) -> None:
        """labels: (N,), 0 is background. Raises ValueError for N = 0."""
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
        """Places of the examples of a batch: (batch_size,) int64, foreground first."""
        return np.concatenate([self._take(kind, batch) for kind in self._kinds])

    def _take(self, kind: tuple[Int64Array, int, int], batch: int) -> Int64Array:
        pool, count, stream = kind
        positions = np.arange(batch * count, (batch + 1) * count)
        if not count:
            return positions
        turns, within = np.divmod(positions, len(pool))
        return np.concatenate(
            [pool[self._pass(stream, int(turn), len(pool))[within[turns == turn]]] for turn in np.unique(turns)]
        )

    def _pass(self, stream: int, turn: int, size: int) -> Int64Array:
        """The order of one pass; the two newest of a kind are kept, because a batch can end one and begin the next."""
        order = self._passes.get((stream, turn))
        if order is None:
            # Threads that make several batches at a time may drop each other's: what is returned is held here.
            order = np.random.default_rng((self._seed, stream, turn)).permutation(size)
            self._passes.pop((stream, turn - 2), None)
            self._passes[stream, turn] = order
        return order
