"""Linear layers with weights from a generator of their own."""

from __future__ import annotations

import torch
from torch import nn

from detpipe.backbone.kept_weights import Linear


def linear_layer(width_in: int, width_out: int, generator: torch.Generator, gain: float = 2.0) -> nn.Linear:
    """A linear layer with weights of variance gain / width_in: gain 2 if a ReLU follows (He et al. 2015, eq. 10)."""
    layer = Linear(width_in, width_out)
    nn.init.normal_(layer.weight, std=(gain / width_in) ** 0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def zero_layer(width_in: int, width_out: int) -> nn.Linear:
    """A linear layer whose output is 0 until it has learned: the end of a residual branch."""
    layer = nn.Linear(width_in, width_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
