"""What is told of a tensor of any size: its mean, spread, extremes, norms, zeros, and what of it is no number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

PIECE = 2**22
"""Numbers that are looked at together, in float64: 32 MB, however large the tensor."""


@dataclass(frozen=True)
class TensorStatistics:
    """Of the finite numbers, in float64; NaN where there are none, but norms, which are 0 then.

    count: of all numbers. std: the root of the mean square deviation (divided by the count, not one less). l1, l2: the
    sum of absolute values, the root of the sum of squares. zeros: the share of all numbers that are exactly 0.
    nan, inf: how many are so.
    """

    count: int
    mean: float
    std: float
    min: float
    max: float
    l1: float
    l2: float
    zeros: float
    nan: int
    inf: int

    @property
    def not_finite(self) -> int:
        """How many are no finite number."""
        return self.nan + self.inf

    def to_json(self) -> dict[str, Any]:
        """By name; None for NaN, which JSON has not."""
        return {name: None if isinstance(x, float) and math.isnan(x) else x for name, x in asdict(self).items()}


def tensor_statistics(tensor: Tensor) -> TensorStatistics:
    """Of a dense tensor of real numbers, of any shape and dtype; on its own device, a piece at a time."""
    total = l1 = squares = 0.0
    finite = zeros = nan = inf = 0
    low, high = math.inf, -math.inf
    for piece in pieces(tensor):
        numbers = piece[piece.isfinite()]
        nan += int(piece.isnan().sum())
        inf += int(piece.isinf().sum())
        if not len(numbers):
            continue
        finite += len(numbers)
        zeros += int((numbers == 0).sum())
        total += float(numbers.sum())
        l1 += float(numbers.abs().sum())
        squares += float(numbers.square().sum())
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
    mean = total / finite if finite else math.nan
    return TensorStatistics(
        count=tensor.numel(),
        mean=mean,
        std=_std(tensor, mean, finite),
        min=low if finite else math.nan,
        max=high if finite else math.nan,
        l1=l1,
        l2=math.sqrt(squares),
        zeros=zeros / tensor.numel() if tensor.numel() else math.nan,
        nan=nan,
        inf=inf,
    )


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The numbers in float64, at most PIECE at a time, in the order of the tensor; none of an empty tensor."""
    if tensor.numel():
        yield from (piece.double() for piece in tensor.detach().reshape(-1).split(PIECE))


def _std(tensor: Tensor, mean: float, finite: int) -> float:
    """In a second pass: the difference of two sums of squares would lose the digits of a small spread."""
    if not finite:
        return math.nan
    deviations = (piece[piece.isfinite()] - mean for piece in pieces(tensor))
    return math.sqrt(sum(float(deviation.square().sum()) for deviation in deviations) / finite)


def histogram(tensor: Tensor, statistics: TensorStatistics, bins: int) -> tuple[list[int], float, float]:
    """How many of the finite numbers lie in each of `bins` equal parts of [min, max]; and these ends.

    Of equal numbers, the part around them. No finite numbers give zeros between 0 and 1.
    """
    if math.isnan(statistics.mean):
        return [0] * bins, 0.0, 1.0
    low, high = statistics.min, statistics.max
    if low == high:
        half = abs(low) / 2 or 0.5
        low, high = low - half, high + half
    counts = torch.zeros(bins, dtype=torch.int64)
    for piece in pieces(tensor):
        # Divided first: high - low may be more than float64 holds.
        place = (piece[piece.isfinite()] / bins - low / bins) / (high / bins - low / bins) * bins
        counts += place.clamp(0, bins - 1).long().bincount(minlength=bins).cpu()
    return counts.tolist(), low, high
