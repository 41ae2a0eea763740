"""Region pooling: RoIPool (Fast R-CNN, Girshick 2015, section 2.1) and RoIAlign (Mask R-CNN, He et al. 2017,
section 3). Each region is pooled from the map for its size (FPN, Lin et al. 2017, eq. 1).

R: number of regions. C: channels. P: side of a pooled region. N: number of images in the batch. L: number of maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torchvision.ops import roi_align, roi_pool

from detpipe import boxes as geometry
from detpipe.heads.fast_rcnn.roi_align import PARALLEL_FROM, SAMPLES, align
from detpipe.heads.fast_rcnn.settings import Pooling

CANONICAL_SIDE, CANONICAL_STRIDE = 224, 16
"""A region of 224 pixels, the input size of ImageNet, is pooled from the map of stride 16 (FPN, section 4.2)."""


def pool_regions(
    maps: Sequence[Tensor], strides: Sequence[int], regions: Tensor, *, pooling: Pooling, size: int
) -> Tensor:
    """Pool regions from L maps (N, C, H / stride, W / stride) and regions (R, 5) -> (R, C, P, P).

    regions: float32 (image index, x1, y1, x2, y2), in pixels of the network's input. Pooling is in float32, because
    coordinates in bf16 would be wrong by whole cells. The result is bf16 for bf16 maps, else float32. R = 0 gives
    (0, C, P, P). RoIAlign on a CPU is our own (`roi_align.py`); other devices and exported graphs use torchvision's.
    """
    levels = level_of(regions[:, 1:], strides)
    if pooling is Pooling.align and regions.device.type == "cpu" and not torch.compiler.is_compiling():
        return align(maps, strides, regions, levels, size)
    dtype = torch.bfloat16 if maps[0].dtype == torch.bfloat16 else torch.float32
    if len(maps) == 1:
        return _pool(maps[0].float(), regions, strides[0], pooling, size).to(dtype)
    # shape[0], not len(): len() would become a constant in an exported graph.
    shape = (regions.shape[0], maps[0].shape[1], size, size)
    pooled = torch.zeros(shape, dtype=torch.float32, device=regions.device)
    for level, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        rows = torch.nonzero(levels == level).squeeze(1)  # may be empty: an exported graph can't branch on it
        pooled = pooled.index_copy(0, rows, _pool(one.float(), regions[rows], stride, pooling, size))
    return pooled.to(dtype)


def level_of(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """The map that each box is pooled from: (R, 4), L ascending strides -> (R,) int64 in 0..L - 1.

    A box of 224 pixels goes to stride 16; twice the side goes to twice the stride (FPN, eq. 1). Boxes without area go
    to the finest map.
    """
    sides = geometry.area_tensors(boxes).clamp(min=1e-6).sqrt()
    wanted = torch.floor(torch.log2(sides / CANONICAL_SIDE) + 1e-6)
    own = torch.log2(torch.tensor([stride / CANONICAL_STRIDE for stride in strides], device=boxes.device))
    return torch.bucketize(wanted, own[1:], right=True)


def _pool(one: Tensor, regions: Tensor, stride: int, pooling: Pooling, size: int) -> Tensor:
    """(N, C, H, W), (R, 5) -> (R, C, P, P)."""
    threads = torch.get_num_threads()
    in_a_graph = torch.compiler.is_compiling()
    if in_a_graph or one.device.type != "cpu" or threads == 1 or len(regions) < PARALLEL_FROM:
        return _pool_part(one, regions, stride, pooling, size)
    # torchvision's CPU kernels are single-threaded and release the interpreter lock.
    if torch.is_grad_enabled():
        learned: Tensor = _PoolByThreads.apply(one, regions, stride, pooling, size)
        return learned
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda part: _pool_inferred(one, part, stride, pooling, size), regions.chunk(threads))
        return torch.cat(list(parts))


def _pool_inferred(one: Tensor, regions: Tensor, stride: int, pooling: Pooling, size: int) -> Tensor:
    """As `_pool_part`, in inference mode, which must be set in each thread."""
    with torch.inference_mode():
        return _pool_part(one, regions, stride, pooling, size)


class _PoolByThreads(torch.autograd.Function):
    """Pools a part of the channels in each thread, forward and backward.

    No two threads add to the same gradient, so the order of summation is fixed and results are reproducible.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, one: Tensor, regions: Tensor, stride: int, pooling: Pooling, size: int) -> Tensor:
        """(N, C, H, W), (R, 5) -> (R, C, P, P)."""

        def pooled(channels: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                leaf = channels.detach().requires_grad_()
                return leaf, _pool_part(leaf, regions, stride, pooling, size)

        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(pooled, one.chunk(threads, dim=1)))
        ctx.parts = parts  # type: ignore[attr-defined]
        return torch.cat([part.detach() for _, part in parts], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the map."""
        parts: list[tuple[Tensor, Tensor]] = ctx.parts  # type: ignore[attr-defined]
        own = gradient.split([part.shape[1] for _, part in parts], dim=1)
        with ThreadPoolExecutor(len(parts)) as pool:
            found = pool.map(lambda part, grad: torch.autograd.grad(part[1], part[0], grad)[0], parts, own)
            return torch.cat(list(found), dim=1), None, None, None, None


def _pool_part(one: Tensor, regions: Tensor, stride: int, pooling: Pooling, size: int) -> Tensor:
    if pooling is Pooling.pool:
        pooled: Tensor = roi_pool(one, regions, size, 1 / stride)
    else:
        pooled = roi_align(one, regions, size, 1 / stride, SAMPLES, aligned=True)
    return pooled
