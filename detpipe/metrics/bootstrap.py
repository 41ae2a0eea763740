"""How sure is a mean over objects: resampling of images (Efron and Tibshirani, "An Introduction to the Bootstrap").

Images are drawn, not objects: objects of one image succeed and fail together, and an interval that took each for a
witness of its own would be too narrow. I: images. R: resamples. n: objects. C: columns, one a number to be known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from detpipe.metrics.recall_measures import Float64Array, mean_of_groups
from detpipe.structures import Int64Array

LEVEL = 0.95
"""The share of the resamples that lie in an interval (percentile interval, section 13.3)."""
_AT_ONCE = 1 << 23
"""So many numbers of drawn images are made float64 at a time: 64 MB, whatever R and I are."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """Numbers and what they might have been. value: (C,) float64, of the data. samples: (R, C) float64, of resamples.

    NaN where there is nothing to average: a resample can miss the only images that have objects.
    """

    value: Float64Array
    samples: Float64Array

    @cached_property
    def interval(self) -> tuple[Float64Array, Float64Array]:
        """Low and high, each (C,): the middle LEVEL of the resamples (percentile interval), NaN left out of them.

        NaN where the value is NaN or there are no resamples.
        """
        low, high = np.full_like(self.value, np.nan), np.full_like(self.value, np.nan)
        known = ~np.isnan(self.samples).all(axis=0) & ~np.isnan(self.value)
        if known.any():
            tail = (1 - LEVEL) / 2
            low[known], high[known] = np.nanquantile(self.samples[:, known], [tail, 1 - tail], axis=0)
        return low, high

    def columns(self, places: slice | list[int]) -> Resampled:
        """Some of the numbers."""
        return Resampled(self.value[places], self.samples[:, places])

    def to_json(self) -> dict[str, list[float | None]]:
        """value, low and high, a list each; None for NaN, which JSON doesn't have."""
        names = ("value", "low", "high")
        return {name: plain_list(column) for name, column in zip(names, (self.value, *self.interval), strict=True)}


@dataclass(frozen=True, eq=False)
class ImageBootstrap:
    """How often each resample drew each image: (R, I) uint16, 10 MB for 1000 resamples of 5000 images.

    The same images, resamples and seed give the same draws; so means of several methods, made by one bootstrap, are
    paired resample by resample.
    """

    counts: npt.NDArray[np.uint16]

    @classmethod
    def draw(cls, images: int, resamples: int, seed: int) -> ImageBootstrap:
        """Draw I of I images with replacement, R times. No images or no resamples give counts without extent.

        Raises ValueError for a negative number of resamples.
        """
        if resamples < 0:
            raise ValueError(f"resamples: expected a number from 0 (no intervals), got {resamples}")
        generator = np.random.default_rng(seed)
        counts = np.zeros((resamples, images), dtype=np.uint16)
        for row in counts if images else ():
            row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
        return cls(counts)

    def means(self, values: Float64Array, images: Int64Array, groups: Int64Array) -> Resampled:
        """The mean over the groups of the mean of each, of the data and of each resample.

        values: (n, C). images: (n,), the place 0..I-1 of each object's image. groups: (n,), as in `mean_of_groups`; a
        resample's mean is over the groups that it drew. n = 0 gives NaN.
        """
        total = np.zeros((len(self.counts), values.shape[1]))
        drawn = np.zeros((len(self.counts), 1))
        for own in (groups == group for group in np.unique(groups)):
            sums, numbers = self._drawn_sums(values[own], images[own])
            total += np.divide(sums, numbers, out=np.zeros_like(sums), where=numbers > 0)
            drawn += numbers > 0
        samples = np.divide(total, drawn, out=np.full_like(total, np.nan), where=drawn > 0)
        return Resampled(mean_of_groups(values, groups), samples)

    def _drawn_sums(self, values: Float64Array, images: Int64Array) -> tuple[Float64Array, Float64Array]:
        """Of each resample the sums of the values (R, C) and the number of objects (R, 1)."""
        present, places = np.unique(images, return_inverse=True)
        columns = (*values.T, np.ones(len(values)))
        of_image = np.stack([np.bincount(places, weights=column) for column in columns], axis=1)
        sums = np.concatenate([block @ of_image for block in self._blocks(present)])
        return sums[:, :-1], sums[:, -1:]

    def _blocks(self, present: Int64Array) -> Iterator[Float64Array]:
        rows = max(1, _AT_ONCE // max(1, len(present)))
        for begin in range(0, max(1, len(self.counts)), rows):
            yield self.counts[begin : begin + rows, present].astype(np.float64)


def plain_list(values: Float64Array) -> list[float | None]:
    """Numbers for JSON: None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
