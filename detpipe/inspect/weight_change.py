"""Comparison of two sets of weights: relative change and cosine similarity of each tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from detpipe.backbone.weights import unwrapped_both
from detpipe.inspect.tensor_statistics import pieces


@dataclass(frozen=True)
class ParameterChange:
    """The change of one tensor, seen as one long vector.

    relative: |now - before| / |before| in the L2 norm; 0 if both are equal, infinite if only `before` is 0.
    cosine: the cosine similarity of the two; NaN if one is 0. Both are NaN if an element is not finite.
    """

    name: str
    relative: float
    cosine: float


@dataclass(frozen=True)
class WeightChange:
    """parameters: the tensors that both have with the same shape, in the order of `now`.

    only_now, only_before: names in only one of the two. other_shape: names in both with different shapes, as (shape
    now, shape before).
    """

    parameters: tuple[ParameterChange, ...]
    only_now: tuple[str, ...]
    only_before: tuple[str, ...]
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def to_json(self) -> dict[str, Any]:
        """Plain containers; None for NaN and infinity."""
        return {
            "parameters": {
                one.name: {"relative": _plain(one.relative), "cosine": _plain(one.cosine)} for one in self.parameters
            },
            "only_now": list(self.only_now),
            "only_before": list(self.only_before),
            "other_shape": {name: {"now": now, "before": before} for name, (now, before) in self.other_shape.items()},
        }


def weight_change(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> WeightChange:
    """Compare the tensors of the same name.

    Prefixes that detectors and training programs add to names (backbone., module., ...) are removed on either side if
    more names match then. The names in the result are without these prefixes.
    """
    now, before = unwrapped_both(now, before)
    both = [name for name in now if name in before]
    return WeightChange(
        parameters=tuple(
            parameter_change(name, now[name], before[name]) for name in both if now[name].shape == before[name].shape
        ),
        only_now=tuple(name for name in now if name not in before),
        only_before=tuple(name for name in before if name not in now),
        other_shape={
            name: (tuple(now[name].shape), tuple(before[name].shape))
            for name in both
            if now[name].shape != before[name].shape
        },
    )


def parameter_change(name: str, now: Tensor, before: Tensor) -> ParameterChange:
    """The change between two tensors of the same shape, in float64. Empty tensors give relative 0 and cosine NaN."""
    distance = product = squares_now = squares_before = 0.0
    for a, b in zip(pieces(now), pieces(before), strict=True):
        distance += float((a - b).square().sum())
        product += float(a @ b)
        squares_now += float(a @ a)
        squares_before += float(b @ b)
    norms = math.sqrt(squares_now) * math.sqrt(squares_before)
    return ParameterChange(
        name=name,
        relative=_ratio(math.sqrt(distance), math.sqrt(squares_before)),
        # Rounding may give a value slightly above 1.
        cosine=max(-1.0, min(1.0, product / norms)) if math.isfinite(product) and 0 < norms < math.inf else math.nan,
    )


def _ratio(distance: float, norm: float) -> float:
    if not math.isfinite(distance) or not math.isfinite(norm):
        return math.nan
    if norm == 0:
        return math.inf if distance else 0.0
    return distance / norm


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
