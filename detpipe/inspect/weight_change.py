"""Two sets of weights beside each other, name by name: how far each tensor went, and whether it kept its direction."""

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
    """Of one tensor, as one long vector.

    relative: |now - before| / |before| in the L2 norm; 0 of equal ones, infinite where `before` is 0 and `now` is not.
    cosine: of the angle between the two; NaN where one is 0, for it has no direction. Both are NaN where a number is
    not finite.
    """

    name: str
    relative: float
    cosine: float


@dataclass(frozen=True)
class WeightChange:
    """parameters: of the tensors that both have in one shape, in the order of now.

    only_now, only_before: names that one alone has. other_shape: names that both have, with (now's, before's) shapes.
    """

    parameters: tuple[ParameterChange, ...]
    only_now: tuple[str, ...]
    only_before: tuple[str, ...]
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def to_json(self) -> dict[str, Any]:
        """Plain containers; None for what is no finite number."""
        return {
            "parameters": {
                one.name: {"relative": _plain(one.relative), "cosine": _plain(one.cosine)} for one in self.parameters
            },
            "only_now": list(self.only_now),
            "only_before": list(self.only_before),
            "other_shape": {name: {"now": now, "before": before} for name, (now, before) in self.other_shape.items()},
        }


def weight_change(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> WeightChange:
    """Compare tensors of one name.

    Prefixes that a detector or a training program puts before the names (backbone., module., ...) are taken off either
    side where more names meet so; names in the result are without them.
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
    """Of two tensors of one shape, in float64; empty ones are equal and have no direction."""
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
        # Rounding may give a little more than 1.
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
