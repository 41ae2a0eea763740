"""Caffe's element-wise activations (ReLU, PReLU, ELU, Sigmoid, TanH, AbsVal, Power) and Dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, constant, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter


class PReLU(nn.Module):
    """max(x, 0) + a min(x, 0) (He et al. 2015, section 2.1). weight: a, (C,) per channel or () for all channels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slope = self.weight.reshape(-1, *[1] * (x.ndim - 2)) if self.weight.ndim else self.weight
        return torch.where(x > 0, x, slope * x)


class Power(nn.Module):
    """(shift + scale x)^power."""

    def __init__(self, power: float, scale: float, shift: float) -> None:
        super().__init__()
        self.power, self.scale, self.shift = power, scale, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shift + self.scale * x
        return x if self.power == 1 else x.pow(self.power)

    def extra_repr(self) -> str:
        return f"power={self.power}, scale={self.scale}, shift={self.shift}"


class AbsVal(nn.Module):
    """|x|."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()


def build_activation(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build an activation without parameters. A ReLU with `negative_slope` is leaky."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    match layer.type:
        case "ReLU":
            slope = layer.relu_param.negative_slope
            return Built(nn.LeakyReLU(slope) if slope else nn.ReLU())
        case "ELU":
            return Built(nn.ELU(layer.elu_param.alpha))
        case "Sigmoid":
            return Built(nn.Sigmoid())
        case "TanH":
            return Built(nn.Tanh())
        case "AbsVal":
            return Built(AbsVal())
        case "Power":
            settings = layer.power_param
            return Built(Power(settings.power, settings.scale, settings.shift))
        case other:
            raise AssertionError(f"expected an activation, got {other}")


def build_prelu(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a PReLU. The slopes start at 0.25 unless a filler is given."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    settings = layer.prelu_param
    if len(bottoms[0]) < 2:
        raise ValueError(f"expected (N, C, ...), got {bottoms[0]}")
    filler = settings.filler if settings.HasField("filler") else constant(0.25)
    return Built(PReLU(() if settings.channel_shared else bottoms[0][1:2]), [filler])


def build_dropout(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a dropout. Training scales the kept elements up, so testing needs no scaling."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    ratio = layer.dropout_param.dropout_ratio
    if not 0 <= ratio < 1:
        raise ValueError(f"expected dropout_ratio in [0, 1), got {ratio}")
    return Built(nn.Dropout(ratio))
