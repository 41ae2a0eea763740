"""Caffe's InnerProduct: a fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, axis_of, count, positive, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter


class InnerProduct(nn.Module):
    """x W^T + b, where all axes from `axis` on are flattened to K inputs: (..., K) -> (..., outputs).

    weight: (outputs, K), or (K, outputs) if transposed, as Caffe stores it.
    """

    def __init__(self, inputs: int, outputs: int, axis: int, bias: bool, transposed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty((inputs, outputs) if transposed else (outputs, inputs)))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.axis, self.transposed = axis, transposed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Not flatten, and no -1, because these fail for N = 0.
        x = x.reshape(*x.shape[: self.axis], self.weight.shape[0 if self.transposed else 1])
        return F.linear(x, self.weight.t() if self.transposed else self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, axis={self.axis}, transposed={self.transposed}"


def build_inner_product(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a fully connected layer over all axes from `axis` on."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    settings = layer.inner_product_param
    axis = axis_of(settings.axis, len(bottoms[0]))
    module = InnerProduct(
        count(bottoms[0][axis:]),
        positive(settings.num_output, "num_output"),
        axis,
        settings.bias_term,
        settings.transpose,
    )
    return Built(module, [settings.weight_filler, settings.bias_filler][: 1 + settings.bias_term])
