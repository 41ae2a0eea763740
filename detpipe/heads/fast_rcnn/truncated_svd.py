"""Compression of a linear layer by truncated SVD (Fast R-CNN, Girshick 2015, section 3.1).

A layer with U x V weights is replaced by two layers with rank x (U + V) weights. Only the largest singular values of
W = U S V' are kept.
"""

from __future__ import annotations

import torch
from torch import nn


def split_linear(width_in: int, width_out: int, rank: int) -> nn.Sequential:
    """The two layers, with random weights: the first has no bias, and there is no ReLU between them.

    Raises ValueError for a rank outside of 1..min(width_in, width_out).
    """
    if not 1 <= rank <= min(width_in, width_out):
        raise ValueError(f"svd: expected a rank of 1 to {min(width_in, width_out)}, got {rank}")
    return nn.Sequential(nn.Linear(width_in, rank, bias=False), nn.Linear(rank, width_out))


@torch.no_grad()
def truncated(layer: nn.Linear, rank: int) -> nn.Sequential:
    """The best approximation of a layer by two layers of this rank, in least squares (Eckart & Young 1936)."""
    pair = split_linear(layer.in_features, layer.out_features, rank)
    u, s, vh = torch.linalg.svd(layer.weight.double(), full_matrices=False)
    thin, thick = pair[0], pair[1]
    assert isinstance(thin, nn.Linear)
    assert isinstance(thick, nn.Linear)
    thin.weight.copy_(s[:rank, None] * vh[:rank])
    thick.weight.copy_(u[:, :rank])
    thick.bias.copy_(layer.bias)
    return pair.to(layer.weight.device)


@torch.no_grad()
def kept_share(layer: nn.Linear, rank: int) -> float:
    """The share of the squared weights' sum that an approximation of this rank keeps."""
    squares = torch.linalg.svdvals(layer.weight.double()) ** 2
    return float(squares[:rank].sum() / squares.sum().clamp(min=1e-300))


@torch.no_grad()
def rank_keeping(layer: nn.Linear, share: float) -> int:
    """The smallest rank that keeps this share of the squared weights' sum; 0 if the two layers would not be smaller."""
    squares = torch.linalg.svdvals(layer.weight.double()) ** 2
    kept = squares.cumsum(0) / squares.sum().clamp(min=1e-300)
    rank = min(int((kept < share - 1e-12).sum()) + 1, len(squares))
    width_in, width_out = layer.in_features, layer.out_features
    return rank if rank * (width_in + width_out) < width_in * width_out else 0
