"""A convolution and the batch norm behind it as one convolution, where the norm's statistics stand still.

Then y = gamma (W x + b - mean) / sqrt(var + eps) + beta is W' x + b' with W' = s W, b' = beta + s (b - mean) and
s = gamma / sqrt(var + eps). The weights are folded anew in each pass, which is little work beside the passes over the
maps that it saves, forward and backward; gradients reach W, gamma and beta through it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolved_and_normed(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """norm(convolution(x)): (N, C, H, W) -> (N, C', H', W'), up to rounding.

    A norm in training mode counts its own statistics, and whoever watches either of the two sees it at work: so they
    run one after the other.
    """
    watched = any(one._forward_hooks or one._forward_pre_hooks for one in (convolution, norm))
    if norm.training or watched or norm.running_mean is None or norm.running_var is None:
        normed: Tensor = norm(convolution(x))
        return normed
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    both: Tensor = convolution._conv_forward(x, convolution.weight * scale[:, None, None, None], shift)
    return both
