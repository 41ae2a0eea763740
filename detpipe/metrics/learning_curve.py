"""The learning curve of a detector: accuracy against the number of training images.

P: numbers of images. D: draws, trainings on different images of the same number. R: resamples of the test images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detpipe.metrics.bootstrap import Resampled
from detpipe.structures import BoolArray, Float64Array, Int64Array

FEWEST_POINTS = 3
"""A power law has two parameters, so it fits any two points and says nothing."""


@dataclass(frozen=True, eq=False)
class LearningPoint:
    """The accuracy for one number of training images.

    images: this number. draws: the mAP of each draw. map: their mean, one column; see `over_draws`.
    """

    images: int
    draws: tuple[float, ...]
    map: Resampled


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """1 - mAP = scale x images^-exponent (Hestness et al., "Deep Learning Scaling is Predictable", 2017).

    Both have one column.
    """

    scale: Resampled
    exponent: Resampled

    def at(self, images: float) -> Resampled:
        """The mAP that the law gives for a number of images."""

        def value(scale: Float64Array, exponent: Float64Array) -> Float64Array:
            return 1 - scale * images**-exponent

        return Resampled(value(self.scale.value, self.exponent.value), value(self.scale.samples, self.exponent.samples))


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The points by ascending number of images. All are resampled over the same test images and draws.

    Raises ValueError for fewer than two different numbers of images: a single point is not a curve.
    """

    points: tuple[LearningPoint, ...]

    def __post_init__(self) -> None:
        numbers = [point.images for point in self.points]
        if len(numbers) < 2 or numbers != sorted(set(numbers)):
            raise ValueError(f"learning curve: expected at least two ascending numbers of images, got {numbers}")

    @property
    def last_gain(self) -> Resampled:
        """The mAP that the last doubling brought: the gain between the last two points per doubling, one column."""
        before, last = self.points[-2:]
        doublings = math.log2(last.images / before.images)
        return Resampled(
            (last.map.value - before.map.value) / doublings, (last.map.samples - before.map.samples) / doublings
        )

    @cached_property
    def power_law(self) -> PowerLaw | str:
        """The power law through all points by least squares of logarithms, or the reason why there is none.

        A law is given only if the points support it: at least FEWEST_POINTS of them, an exponent whose interval is
        above 0, and a law within the interval of each point.
        """
        numbers = np.array([point.images for point in self.points], dtype=np.float64)
        if len(numbers) < FEWEST_POINTS:
            return f"{len(numbers)} numbers of images are too few to fit it"
        values = np.concatenate([point.map.value for point in self.points])
        samples = np.concatenate([point.map.samples for point in self.points], axis=1)
        if not (values < 1).all():
            return "mAP is 1 or unknown at some number of images"
        law = _fitted(numbers, values[None], samples)
        # Not 0: the exponent of equal accuracies is rounded to either side of it.
        if not min(law.exponent.value.item(), law.exponent.interval[0].item()) > 1e-9:
            return "it is not certain that mAP rises with the number of images"
        for point in self.points:
            ends = [end.item() for end in point.map.interval]
            if not ends[0] <= law.at(point.images).value.item() <= ends[1]:
                return f"it does not pass through the interval at {point.images} images"
        return law


def _fitted(numbers: Float64Array, values: Float64Array, samples: Float64Array) -> PowerLaw:
    """Fit the values (1, P), and each sample (R, P). A sample that reaches 1 gives NaN."""
    errors = 1 - np.concatenate([values, samples])
    logs = np.log(errors, out=np.full_like(errors, np.nan), where=errors > 0)
    x = np.log(numbers)
    centred = x - x.mean()
    slope = logs @ centred / (centred @ centred)
    scale = np.exp(logs.mean(axis=1) - slope * x.mean())
    return PowerLaw(Resampled(scale[:1], scale[1:, None]), Resampled(-slope[:1], -slope[1:, None]))


def over_draws(draws: Sequence[Resampled], seed: int) -> Resampled:
    """The mean of D draws of one column, with samples over both the test images and the draws.

    Sample r is the mean of resample r of the test images over D draws, which are themselves drawn with replacement.
    This alone would vary too little: the variance of D resampled values is (D - 1) / D of the unbiased one. So the
    deviation from the mean of all draws is multiplied by sqrt(D / (D - 1)) (Davison and Hinkley, "Bootstrap Methods",
    1997, section 2.3). The same seed and number of draws choose the same draws, so differences between points are
    paired. One draw gives its own samples. Samples are clipped to [0, 1], as an mAP is.
    Raises ValueError without draws.
    """
    if not draws:
        raise ValueError("over_draws: expected at least one draw, got none")
    values = np.stack([one.value for one in draws])
    samples = np.stack([one.samples[:, 0] for one in draws])
    count, resamples = samples.shape
    mean = samples.mean(axis=0)
    chosen = np.random.default_rng(seed).integers(count, size=(resamples, count))
    drawn = samples[chosen, np.arange(resamples)[:, None]].mean(axis=1)
    stretch = math.sqrt(count / (count - 1)) if count > 1 else 0.0
    return Resampled(values.mean(axis=0), np.clip(mean + stretch * (drawn - mean), 0, 1)[:, None])


def nested_order(holds: BoolArray, smallest: int, generator: np.random.Generator) -> Int64Array:
    """A random order of I training images, of which the first `smallest` contain every class if possible.

    holds: (I, K), whether an image has objects of a class. Sets of all sizes are the first images of this order, so
    each contains the smaller ones. If a class is not among the first `smallest` images, the first later image that
    has it changes places with the last of these images that no class needs; the rarest class comes first. No images
    give an empty order.
    """
    order = generator.permutation(len(holds))
    numbers = holds.sum(axis=0)
    for label in np.argsort(numbers, kind="stable"):
        first = holds[order[:smallest]]
        later = np.flatnonzero(holds[order[smallest:], label])
        if first[:, label].any() or not len(later):
            continue
        # An image is needed if it is the only one with some class.
        spare = np.flatnonzero(~(first & (first.sum(axis=0) == 1)).any(axis=1))
        if not len(spare):
            break
        here, there = spare[-1], smallest + later[0]
        order[here], order[there] = order[there], order[here]
    return np.asarray(order, dtype=np.int64)


def set_sizes(images: int, shares: Sequence[float]) -> list[int]:
    """The different numbers of images of these shares, ascending, each at least 1. No images give []."""
    return sorted({max(round(share * images), 1) for share in shares}) if images else []
