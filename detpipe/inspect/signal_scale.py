"""Do signals keep their size through the layers, or explode, or vanish?

The size of activations is their standard deviation. That of a gradient is its length, the L2 norm of all images
together: where a layer has more places, the gradient of each is smaller, though nothing of the whole is lost.

A filler is right when they keep it: Glorot & Bengio 2010, section 4.2; He et al. 2015, section 2.2. By a factor f a
layer, n layers change the size by f^n.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from detpipe.inspect.signals import Signals

LIMIT = 100.0
"""From the first layer to the last a signal may grow or shrink by so much."""


class Verdict(enum.Enum):
    """What becomes of a signal on its way."""

    holds = "holds"
    explodes = "explodes"
    vanishes = "vanishes"


@dataclass(frozen=True)
class SignalScale:
    """start, end: sizes where the signal comes from and where it goes. layers: how many it went through."""

    verdict: Verdict
    start: float
    end: float
    layers: int

    @property
    def factor(self) -> float:
        """The size's change over all layers; NaN where it can't be told."""
        return self.end / self.start if self.start else math.nan

    @property
    def factor_a_layer(self) -> float:
        """The geometric mean of the changes from layer to layer."""
        return math.pow(self.factor, 1 / max(self.layers - 1, 1))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; None for what is no finite number."""
        numbers = {**asdict(self), "factor": self.factor, "factor_a_layer": self.factor_a_layer}
        plain = {k: x if not isinstance(x, float) or math.isfinite(x) else None for k, x in numbers.items()}
        return {**plain, "verdict": self.verdict.value}


def signal_scale(sizes: Sequence[float], *, finite: bool = True) -> SignalScale:
    """From the sizes in the order of the way, one or more. finite: whether all numbers of the signals were.

    Raises ValueError for none.
    """
    if not sizes:
        raise ValueError("signal_scale: expected the size at a layer or more, got none")
    start, end = sizes[0], sizes[-1]
    if not finite or not all(map(math.isfinite, sizes)) or end > LIMIT * start:
        verdict = Verdict.explodes
    elif end * LIMIT < start or not end:
        verdict = Verdict.vanishes
    else:
        verdict = Verdict.holds
    return SignalScale(verdict, start, end, len(sizes))


def activation_scale(signals: Signals) -> SignalScale | None:
    """Of the outputs of the layers with weights, from the first to the last; None where there is no such layer.

    Layers that the loss doesn't come from, a box regression's for instance, have no gradient and are left out.
    """
    found = [layer.activation for layer in signals.layers if layer.weight is not None and layer.gradient is not None]
    finite = not any(one.not_finite for one in found)
    return signal_scale([one.std for one in found], finite=finite) if found else None


def gradient_scale(signals: Signals) -> SignalScale | None:
    """Of the gradients for these outputs, from the last layer, where they begin, to the first; None without any."""
    found = [layer.gradient for layer in signals.layers if layer.weight is not None and layer.gradient is not None]
    finite = not any(one.not_finite for one in found)
    return signal_scale([one.l2 for one in reversed(found)], finite=finite) if found else None
