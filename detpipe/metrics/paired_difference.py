"""Paired bootstrap: the difference of two methods on the same images.

Each resample of the images gives one difference. Hard images are hard for both methods, so the interval of the
difference is narrower than two separate intervals suggest; these may overlap although the difference is significant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detpipe.metrics.bootstrap import Resampled, plain_list
from detpipe.structures import Float64Array


@dataclass(frozen=True, eq=False)
class PairedDifference:
    """First minus second, in C columns.

    difference: of the data and of the resamples. same_sign: (C,), the share of the resamples with the sign of the
    data's difference. p: (C,), two-sided p-value of "no difference": twice the smaller of the shares of resamples <= 0
    and >= 0, at most 1. One extra resample of 0 is counted, because R resamples can't show less than 1 / (R + 1)
    (Davison and Hinkley, "Bootstrap Methods", 1997, section 4.2). same_sign and p are NaN if the difference is NaN.
    """

    difference: Resampled
    same_sign: Float64Array
    p: Float64Array

    def to_json(self) -> dict[str, list[float | None]]:
        """Lists "difference", "low", "high", "same_sign" and "p"; None for NaN."""
        value, low, high = self.difference.to_json().values()
        rest = {"same_sign": plain_list(self.same_sign), "p": plain_list(self.p)}
        return {"difference": value, "low": low, "high": high, **rest}


def paired_difference(first: Resampled, second: Resampled) -> PairedDifference:
    """Compare two methods, which must come from one ImageBootstrap of the same images and objects.

    Equal methods give a difference of exactly 0 with p = 1. No resamples or no objects give NaN.
    Raises ValueError if the numbers of resamples or columns differ.
    """
    if first.samples.shape != second.samples.shape:
        shapes = f"{first.samples.shape} and {second.samples.shape}"
        raise ValueError(f"paired_difference: expected resamples of one bootstrap, (R, C) each, got {shapes}")
    difference = Resampled(first.value - second.value, first.samples - second.samples)
    known = ~np.isnan(difference.samples)
    numbers = known.sum(axis=0)
    sign = np.sign(difference.value)
    same = np.where(known, np.sign(difference.samples) == sign, False).sum(axis=0)
    above, below = (difference.samples >= 0).sum(axis=0), (difference.samples <= 0).sum(axis=0)
    p = np.minimum(1.0, 2 * (np.minimum(above, below) + 1) / (numbers + 1))
    unknown = (numbers == 0) | np.isnan(difference.value)
    return PairedDifference(
        difference=difference,
        same_sign=np.where(unknown, np.nan, same / np.maximum(numbers, 1)),
        p=np.where(unknown, np.nan, p),
    )
