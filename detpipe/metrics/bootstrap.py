"""Bootstrap intervals of means over objects (Efron and Tibshirani, "An Introduction to the Bootstrap").

Images are resampled, not objects. Objects in one image are correlated, so intervals from independent objects would be
too narrow. I: images. R: resamples. n: objects. C: columns, one for each quantity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from detpipe.metrics.recall_measures import mean_of_groups
from detpipe.structures import Float64Array, Int64Array

LEVEL = 0.95
"""Confidence level: the share of the resamples in an interval (percentile interval, section 13.3)."""
_AT_ONCE = 1 << 23
"""Limit on the counts that are converted to float64 at a time (64 MB), for any R and I."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """Quantities with their bootstrap samples. value: (C,) float64, from the data. samples: (R, C) float64.

    NaN where there is nothing to average; a resample may contain no image with objects.
    """

    value: Float64Array
    samples: Float64Array

    @cached_property
    def interval(self) -> tuple[Float64Array, Float64Array]:
        """The percentile interval (low, high), each (C,), of the resamples that are not NaN.

        NaN if the value is NaN or there are no resamples.
        """
        low, high = np.full_like(self.value, np.nan), np.full_like(self.value, np.nan)
        known = ~np.isnan(self.samples).all(axis=0) & ~np.isnan(self.value)
        if known.any():
            tail = (1 - LEVEL) / 2
            low[known], high[known] = np.nanquantile(self.samples[:, known], [tail, 1 - tail], axis=0)
        return low, high

    def columns(self, index: slice | list[int]) -> Resampled:
        """The selected columns."""
        return Resampled(self.value[index], self.samples[:, index])

    def to_json(self) -> dict[str, list[float | None]]:
        """Lists "value", "low" and "high"; None for NaN."""
        names = ("value", "low", "high")
        return {name: plain_list(column) for name, column in zip(names, (self.value, *self.interval), strict=True)}


@dataclass(frozen=True, eq=False)
class ImageBootstrap:
    """Resamples of images. counts: (R, I) uint16, how often each resample contains each image.

    1000 resamples of 5000 images take 10 MB. The same images, resamples and seed give the same draws, so means of
    several methods from one bootstrap are paired.
    """

    counts: npt.NDArray[np.uint16]

    @classmethod
    def draw(cls, images: int, resamples: int, seed: int) -> ImageBootstrap:
        """Draw I of I images with replacement, R times. No images or no resamples give an empty array of counts.

        Raises ValueError for a negative number of resamples.
        """
        if resamples < 0:
            raise ValueError(f"resamples: expected 0 (no intervals) or more, got {resamples}")
        generator = np.random.default_rng(seed)
        counts = np.zeros((resamples, images), dtype=np.uint16)
        for row in counts if images else ():
            row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
        return cls(counts)

    def means(self, values: Float64Array, images: Int64Array, groups: Int64Array) -> Resampled:
        """The mean over groups of the mean of each group, for the data and for each resample.

        values: (n, C). images: (n,), the index 0..I-1 of each object's image. groups: (n,), as in `mean_of_groups`; a
        resample averages only the groups that it contains. n = 0 gives NaN.
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
        """For each resample, the sums of the values (R, C) and the number of objects (R, 1)."""
        present, index = np.unique(images, return_inverse=True)
        columns = (*values.T, np.ones(len(values)))
        per_image = np.stack([np.bincount(index, weights=column) for column in columns], axis=1)
        sums = np.concatenate([block @ per_image for block in self._blocks(present)])
        return sums[:, :-1], sums[:, -1:]

    def _blocks(self, present: Int64Array) -> Iterator[Float64Array]:
        rows = max(1, _AT_ONCE // max(1, len(present)))
        for begin in range(0, max(1, len(self.counts)), rows):
            yield self.counts[begin : begin + rows, present].astype(np.float64)


def plain_list(values: Float64Array) -> list[float | None]:
    """A list for JSON, with None for NaN."""
    return [or_none(float(value)) for value in values]


def or_none(value: float) -> float | None:
    """A number for JSON, which has no NaN: None for NaN."""
    return None if math.isnan(value) else value
