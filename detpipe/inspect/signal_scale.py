"""Whether activations and gradients keep their size through the layers, explode or vanish.

The size of activations is their standard deviation. The size of a gradient is its L2 norm over all images: a layer with
more cells has a smaller gradient in each cell, but the same norm.

Good initial weights keep the sizes (Glorot & Bengio 2010, section 4.2; He et al. 2015, section 2.2). A factor of f per
layer changes the size by f^n in n layers.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from detpipe.inspect.signals import Signals

LIMIT = 100.0
"""Largest factor by which a healthy signal grows or shrinks from the first layer to the last."""


class Verdict(enum.Enum):
    """Whether a signal keeps its size (holds), explodes or vanishes."""

    holds = "holds"
    explodes = "explodes"
    vanishes = "vanishes"


@dataclass(frozen=True)
class SignalScale:
    """start, end: the size of the signal at its first and last layer. layers: the number of layers."""

    verdict: Verdict
    start: float
    end: float
    layers: int

    @property
    def factor(self) -> float:
        """The factor from the first to the last size; NaN if the first is 0."""
        return self.end / self.start if self.start else math.nan

    @property
    def factor_a_layer(self) -> float:
        """The factor per layer: the geometric mean over the layers."""
        return math.pow(self.factor, 1 / max(self.layers - 1, 1))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; None for NaN and infinity."""
        numbers = {**asdict(self), "factor": self.factor, "factor_a_layer": self.factor_a_layer}
        plain = {k: x if not isinstance(x, float) or math.isfinite(x) else None for k, x in numbers.items()}
        return {**plain, "verdict": self.verdict.value}


def signal_scale(sizes: Sequence[float], *, finite: bool = True) -> SignalScale:
    """Judge a signal from its sizes at one or more layers, in order. finite: whether all values of it were finite.

    Raises ValueError for no sizes.
    """
    if not sizes:
        raise ValueError("signal_scale: expected the size at one layer or more, got none")
    start, end = sizes[0], sizes[-1]
    if not finite or not all(map(math.isfinite, sizes)) or end > LIMIT * start:
        verdict = Verdict.explodes
    elif end * LIMIT < start or not end:
        verdict = Verdict.vanishes
    else:
        verdict = Verdict.holds
    return SignalScale(verdict, start, end, len(sizes))


def activation_scale(signals: Signals) -> SignalScale | None:
    """The scale of the outputs of all layers with weights, from the first to the last; None without such layers.

    Layers without a gradient, because the loss does not depend on them (such as a box regression), are left out.
    """
    found = [layer.activation for layer in signals.layers if layer.weight is not None and layer.gradient is not None]
    finite = not any(one.not_finite for one in found)
    return signal_scale([one.std for one in found], finite=finite) if found else None


def gradient_scale(signals: Signals) -> SignalScale | None:
    """The scale of the gradients of these outputs, from the last layer to the first; None without such layers."""
    found = [layer.gradient for layer in signals.layers if layer.weight is not None and layer.gradient is not None]
    finite = not any(one.not_finite for one in found)
    return signal_scale([one.l2 for one in reversed(found)], finite=finite) if found else None
