"""Statistics of a tensor of any size: mean, standard deviation, extremes, norms, zeros, NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

PIECE = 2**22
"""Number of elements that are processed at a time, in float64. So memory is limited to 32 MB for any tensor."""


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of the finite elements, in float64. Without finite elements they are NaN, but the norms are 0.

    count: number of all elements. std: population standard deviation (divisor n, not n - 1). l1: sum of absolute
    values. l2: root of the sum of squares. zeros: the share of all elements that are exactly 0. nan, inf: number of NaN
    and of infinite elements.
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
        """The number of elements that are NaN or infinite."""
        return self.nan + self.inf

    def to_json(self) -> dict[str, Any]:
        """Values by name; None for NaN, which JSON does not have."""
        return {name: None if isinstance(x, float) and math.isnan(x) else x for name, x in asdict(self).items()}


def tensor_statistics(tensor: Tensor) -> TensorStatistics:
    """The statistics of a dense real tensor of any shape and dtype, computed on its device, a piece at a time."""
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
    """Yield the elements as float64, at most PIECE at a time, in order; an empty tensor yields nothing."""
    if tensor.numel():
        yield from (piece.double() for piece in tensor.detach().reshape(-1).split(PIECE))


def _std(tensor: Tensor, mean: float, finite: int) -> float:
    """Standard deviation by a second pass: a difference of two sums of squares would lose a small one in rounding."""
    if not finite:
        return math.nan
    deviations = (piece[piece.isfinite()] - mean for piece in pieces(tensor))
    return math.sqrt(sum(float(deviation.square().sum()) for deviation in deviations) / finite)


def histogram(tensor: Tensor, statistics: TensorStatistics, bins: int) -> tuple[list[int], float, float]:
    """The histogram of the finite elements: counts in `bins` equal parts of [min, max], and the ends min and max.

    If all elements are equal, the range is widened around them. Without finite elements the counts are 0 and the range
    is 0 to 1.
    """
    if math.isnan(statistics.mean):
        return [0] * bins, 0.0, 1.0
    low, high = statistics.min, statistics.max
    if low == high:
        half = abs(low) / 2 or 0.5
        low, high = low - half, high + half
    counts = torch.zeros(bins, dtype=torch.int64)
    for piece in pieces(tensor):
        # Divided first, because high - low may overflow float64.
        index = (piece[piece.isfinite()] / bins - low / bins) / (high / bins - low / bins) * bins
        counts += index.clamp(0, bins - 1).long().bincount(minlength=bins).cpu()
    return counts.tolist(), low, high
