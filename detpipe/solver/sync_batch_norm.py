"""Batch norm over the batches of all ranks (Peng et al., "MegDet", CVPR 2018, section 3.3), on CPU and GPU.

torch's SyncBatchNorm does not accept CPU tensors, so it could not be compared with a single process in tests.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d that computes mean and variance in training over the batches of all ranks.

    Parameters and buffers have the same names as in nn.BatchNorm2d. All ranks must call it equally often.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); N may differ between ranks.

        Raises ValueError if there is only one value per channel over all ranks.
        """
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        channels = (1, -1, 1, 1)
        values = x.float()
        ones = values.new_tensor([x.numel() / x.shape[1]])
        sums = _sum(torch.cat([values.sum(dim=(0, 2, 3)), ones]))
        count = sums[-1].detach()
        if count <= 1:
            raise ValueError(
                "batch norm: expected more than one value per channel over all processes, got one; use larger batches"
            )
        mean = sums[:-1] / count
        # Computed from the common mean in a second pass, because E[x^2] - E[x]^2 is inaccurate for a small variance.
        centred = values - mean.view(channels)
        variance = _sum(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * torch.rsqrt(variance + self.eps).view(channels)
        if self.affine:
            normed = normed * self.weight.view(channels) + self.bias.view(channels)
        return normed.to(x.dtype)

    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Update the running statistics as nn.BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased_variance, share)


def synchronise_batch_norms(network: nn.Module) -> None:
    """Convert each nn.BatchNorm2d of a network to SyncBatchNorm2d in place, with the same parameters and buffers.

    Raises ValueError, which names the layer, for other kinds of batch norm, whose statistics would not be synchronised.
    """
    for name, module in network.named_modules():
        if type(module) is nn.BatchNorm2d:
            # Only the class is changed, so that references to the module and its parameters stay valid.
            module.__class__ = SyncBatchNorm2d
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) is not SyncBatchNorm2d:
            raise ValueError(
                f"head.sync_batch_norm: expected only layers of torch's BatchNorm2d, got {name}, a "
                f"{type(module).__name__}; freeze them (head.freeze_batch_norm=true), or train with one process"
            )


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; its gradient is the sum of the gradients of all ranks."""

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
