"""Caffe's Pooling, whose last windows may reach over the border (pooling_layer.cpp).

For an axis of size i with kernel k, stride s and padding p, there are ceil((i + 2p - k) / s) + 1 windows. If there is
padding, the last window is dropped if it would start beyond i + p. torch's ceil_mode drops it without padding too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
import torch.nn.functional as F
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, check_activations, count, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter, PoolingParameter

LOWEST = torch.finfo(torch.float32).min
"""The maximum of a window that is completely outside: Caffe's -FLT_MAX."""

Pair = tuple[int, int]


class Pooling(nn.Module):
    """(N, C, H, W) -> (N, C, H', W'), the maximum or average of each window.

    An average divides by the number of cells of the window within H + 2p and W + 2p, including padding. A maximum
    ignores padding. A window that is completely outside gives -FLT_MAX for MAX and NaN for AVE, as in Caffe.
    """

    def __init__(self, average: bool, kernel: Pair, stride: Pair, pad: Pair, floor: bool = False) -> None:
        super().__init__()
        self.average, self.kernel, self.stride, self.pad, self.floor = average, kernel, stride, pad, floor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.output_size(x.shape[2], x.shape[3])
        if self._is_supported_by_torch(x.shape[2], x.shape[3], height, width):
            if self.average:
                return F.avg_pool2d(x, self.kernel, self.stride, self.pad, not self.floor, count_include_pad=True)
            return F.max_pool2d(x, self.kernel, self.stride, self.pad, ceil_mode=not self.floor)
        unpadded, x = x, self._padded(x, height, width)
        if not self.average:
            return F.max_pool2d(x, self.kernel, self.stride)
        sums = F.avg_pool2d(x, self.kernel, self.stride, divisor_override=1)
        return sums / self._divisors(unpadded, x)

    def output_size(self, height: int, width: int) -> Pair:
        """(H', W') for an input of this size. Raises ValueError if the input is smaller than the kernel."""
        rounded = [
            (size + 2 * p - k) // s + 1 if self.floor else ceil((size + 2 * p - k) / s) + 1
            for size, k, s, p in zip((height, width), self.kernel, self.stride, self.pad, strict=True)
        ]
        if any(self.pad):
            rounded = [
                n - ((n - 1) * s >= size + p)
                for n, size, s, p in zip(rounded, (height, width), self.stride, self.pad, strict=True)
            ]
        if min(rounded) < 1:
            raise ValueError(f"expected an input of at least the kernel {self.kernel}, got ({height}, {width})")
        return rounded[0], rounded[1]

    def extra_repr(self) -> str:
        return f"{'AVE' if self.average else 'MAX'}, kernel={self.kernel}, stride={self.stride}, pad={self.pad}"

    def _is_supported_by_torch(self, height: int, width: int, high: int, wide: int) -> bool:
        """Whether torch's pooling gives the same: it allows padding up to half the kernel, and drops outer windows."""
        for size, n, k, s, p in zip((height, width), (high, wide), self.kernel, self.stride, self.pad, strict=True):
            if 2 * p > k or k > size + 2 * p or (n - 1) * s >= size + p:
                return False
        return True

    def _padded(self, x: torch.Tensor, high: int, wide: int) -> torch.Tensor:
        """The input with its padding, and with more at the bottom and right if the last windows reach further."""
        rest = [
            (n - 1) * s + k - size - p
            for n, s, k, size, p in zip((high, wide), self.stride, self.kernel, x.shape[2:], self.pad, strict=True)
        ]
        # A large stride may need padding that does not fit into memory.
        padded = (*x.shape[:2], *(sum(r) for r in zip(x.shape[2:], self.pad, rest, strict=True)))
        check_activations(count(padded), x.shape[0], "a padded input")
        value = 0.0 if self.average else LOWEST
        return F.pad(x, (self.pad[1], rest[1], self.pad[0], rest[0]), value=value)

    def _divisors(self, unpadded: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        """The divisor of each window's average: (H', W')."""
        sides = []
        for axis, (k, s, p) in enumerate(zip(self.kernel, self.stride, self.pad, strict=True), start=2):
            size = unpadded.shape[axis]
            starts = torch.arange(0, padded.shape[axis] - k + 1, s, device=padded.device)
            sides.append((starts + k).clamp(max=size + 2 * p) - starts)
        return sides[0][:, None] * sides[1]


class GlobalPooling(nn.Module):
    """(N, C, H, W) -> (N, C, 1, 1): one window over the whole map, of any size."""

    def __init__(self, average: bool) -> None:
        super().__init__()
        self.average = average

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True) if self.average else F.max_pool2d(x, (x.shape[2], x.shape[3]))

    def extra_repr(self) -> str:
        return "AVE" if self.average else "MAX"


def build_pooling(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a MAX or AVE pooling over windows or over the whole map."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    settings = layer.pooling_param
    if len(bottoms[0]) != 4:
        raise ValueError(f"expected (N, C, H, W), got {bottoms[0]}")
    if settings.pool not in (PoolingParameter.MAX, PoolingParameter.AVE):
        raise ValueError(f"expected pool MAX or AVE, got {PoolingParameter.PoolMethod.Name(settings.pool)}")
    average = settings.pool == PoolingParameter.AVE
    kernel = _pair(settings, "kernel")
    stride, pad = _pair(settings, "stride") or (1, 1), _pair(settings, "pad") or (0, 0)
    if settings.global_pooling:
        if kernel or stride != (1, 1) or pad != (0, 0):
            raise ValueError("expected global_pooling without kernel, stride and pad, got both")
        return Built(GlobalPooling(average))
    if kernel is None:
        raise ValueError("expected kernel_size, kernel_h and kernel_w, or global_pooling, got none")
    if min(kernel) < 1 or min(stride) < 1 or pad[0] >= kernel[0] or pad[1] >= kernel[1]:
        raise ValueError(
            f"expected kernel and stride of 1 or more, pad below the kernel, got {kernel}, {stride}, {pad}"
        )
    return Built(Pooling(average, kernel, stride, pad, settings.round_mode == PoolingParameter.FLOOR))


def _pair(settings: PoolingParameter, name: str) -> Pair | None:
    """A setting for height and width, from kernel_size or from kernel_h and kernel_w; None if neither is given."""
    field = "kernel_size" if name == "kernel" else name
    sides = [side for side in (f"{name}_h", f"{name}_w") if settings.HasField(side)]
    if sides and (len(sides) < 2 or settings.HasField(field)):
        raise ValueError(f"expected {field}, or both {name}_h and {name}_w, got a mixture")
    if sides:
        return getattr(settings, sides[0]), getattr(settings, sides[1])
    value = getattr(settings, field)
    return (value, value) if settings.HasField(field) else None
