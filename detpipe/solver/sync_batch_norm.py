"""Batch norm over the batches of all processes (Peng et al., "MegDet", CVPR 2018, section 3.3), on CPUs as on GPUs.

torch's own SyncBatchNorm takes no CPU tensors, so it could not be tested beside one process here.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose mean and variance in training are those of all processes' batches together.

    Parameters, buffers and their names are nn.BatchNorm2d's. All processes must call it the same number of times.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same, N of each process its own. Raises ValueError where all have one value a channel."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        channels = (1, -1, 1, 1)
        values = x.float()
        ones = values.new_tensor([x.numel() / x.shape[1]])
        sums = _sum(torch.cat([values.sum(dim=(0, 2, 3)), ones]))
        count = sums[-1].detach()
        if count <= 1:
            raise ValueError("batch norm: expected more than one value a channel over all processes, got one")
        mean = sums[:-1] / count
        # In a second round, from the common mean: E[x^2] - E[x]^2 loses the digits of a small variance.
        centred = values - mean.view(channels)
        variance = _sum(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * torch.rsqrt(variance + self.eps).view(channels)
        if self.affine:
            normed = normed * self.weight.view(channels) + self.bias.view(channels)
        return normed.to(x.dtype)

    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """The running statistics, as nn.BatchNorm2d keeps them."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased_variance, share)


def synchronise_batch_norms(network: nn.Module) -> None:
    """Make a SyncBatchNorm2d of each nn.BatchNorm2d of a network, with its own parameters and buffers.

    Raises ValueError naming a batch norm of another kind, whose statistics would stay apart.
    """
    for name, module in network.named_modules():
        if type(module) is nn.BatchNorm2d:
            # The same object with another forward pass: what refers to it or its parameters stays right.
            module.__class__ = SyncBatchNorm2d
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) is not SyncBatchNorm2d:
            raise ValueError(
                f"head.sync_batch_norm: expected batch norms of torch's BatchNorm2d alone, got {name}, a "
                f"{type(module).__name__}; freeze them (head.freeze_batch_norm=true), or train with one process"
            )


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; a gradient of it is the sum of all processes' gradients."""

    @staticmethod
    def forward(_: object, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(_: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(tensor)
    return total
