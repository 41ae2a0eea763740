"""Regions pooled from maps: levels and values by hand, torchvision as the reference of a single map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from detpipe.heads.fast_rcnn.roi_align import PARALLEL_FROM
from detpipe.heads.fast_rcnn.roi_pooling import level_of, pool_regions
from detpipe.heads.fast_rcnn.settings import Pooling


def regions_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def test_a_box_of_twice_the_side_is_pooled_one_level_up() -> None:
    sides = [0.0, 10.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 5000.0]
    boxes = torch.tensor([[5.0, 5.0, 5.0 + side, 5.0 + side] for side in sides])
    assert level_of(boxes, [8, 16, 32]).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2]
    assert level_of(boxes, [4, 8]).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert level_of(boxes, [16]).tolist() == [0] * len(sides)
    assert level_of(boxes[:0], [8, 16]).shape == (0,)


def test_align_of_a_ramp_is_the_ramp_at_the_bins_centres() -> None:
    """A map whose values are x and y in pixels, at the centres of its steps: what is pooled can be worked out."""
    stride, steps = 8, 12
    centres = (torch.arange(steps) + 0.5) * stride
    ramp = torch.stack(torch.meshgrid(centres, centres, indexing="xy"))[None]
    pooled = pool_regions([ramp], [stride], regions_of((0, 10, 20, 38, 76)), pooling=Pooling.align, size=7)
    torch.testing.assert_close(pooled[0, 0, 0], 10 + (torch.arange(7) + 0.5) * 4)  # bins of 28 / 7 pixels
    torch.testing.assert_close(pooled[0, 1, :, 0], 20 + (torch.arange(7) + 0.5) * 8)  # and of 56 / 7


def test_pool_takes_the_largest_of_each_bin() -> None:
    one = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = pool_regions([one], [1], regions_of((0, 0, 0, 3, 3)), pooling=Pooling.pool, size=2)
    assert pooled.reshape(-1).tolist() == [5, 7, 13, 15]


@pytest.mark.parametrize("pooling", list(Pooling))
def test_regions_keep_their_places_whatever_their_level_and_image(pooling: Pooling) -> None:
    maps = [torch.full((2, 3, 64 // stride, 64 // stride), float(stride)) for stride in (1, 2, 4)]
    for one in maps:
        one[1] += 100
    small, large = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 60.0, 60.0)
    regions = regions_of((1, *large), (0, *small), (0, *large), (1, *small))
    pooled = pool_regions(maps, [1, 2, 4], regions, pooling=pooling, size=2)
    levels = level_of(regions[:, 1:], [1, 2, 4])
    expected = [float((1, 2, 4)[level]) + 100 * image for level, image in zip(levels, (1, 0, 0, 1), strict=True)]
    assert pooled.mean(dim=(1, 2, 3)).tolist() == expected
    assert levels.tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_nothing(pooling: Pooling, threads: int, use_threads: Callable[[int], None]) -> None:
    """Neither what is pooled nor its gradient: of five channels, which is fewer than some have threads.

    RoIPool is torchvision's to the last bit; RoIAlign is compiled here, with sums in another order.
    """
    exact = 0.0 if pooling is Pooling.pool else 1e-5
    generator = torch.Generator().manual_seed(0)
    one = torch.randn((2, 5, 20, 20), generator=generator).requires_grad_()
    corners = torch.rand((2 * PARALLEL_FROM, 2), generator=generator) * 80
    sides = torch.rand((2 * PARALLEL_FROM, 2), generator=generator) * 70 + 1
    images = torch.arange(len(corners))[:, None] % 2
    regions = torch.cat([images, corners, corners + sides], dim=1)
    if pooling is Pooling.align:
        expected = roi_align(one, regions, 3, 1 / 8, 2, aligned=True)
    else:
        expected = roi_pool(one, regions, 3, 1 / 8)
    upstream = torch.randn(expected.shape, generator=generator)
    (wanted,) = torch.autograd.grad(expected, one, upstream)
    use_threads(threads)
    with torch.inference_mode():
        together = pool_regions([one], [8], regions, pooling=pooling, size=3)
    torch.testing.assert_close(together, expected, rtol=exact, atol=exact)
    learned = pool_regions([one], [8], regions, pooling=pooling, size=3)
    torch.testing.assert_close(learned, expected, rtol=exact, atol=exact)
    (gradient,) = torch.autograd.grad(learned, one, upstream)
    torch.testing.assert_close(gradient, wanted, rtol=exact, atol=10 * exact)


def test_no_regions() -> None:
    maps = [torch.zeros(1, 5, 8, 8), torch.zeros(1, 5, 4, 4)]
    for some in (maps, maps[:1]):
        pooled = pool_regions(some, [8, 16][: len(some)], regions_of(), pooling=Pooling.align, size=7)
        assert pooled.shape == (0, 5, 7, 7)


def test_gradients_reach_every_level() -> None:
    maps = [torch.randn(1, 2, 64 // stride, 64 // stride, requires_grad=True) for stride in (1, 2)]
    regions = regions_of((0, 0, 0, 6, 6), (0, 2, 2, 60, 60))
    pool_regions(maps, [1, 2], regions, pooling=Pooling.align, size=2).square().sum().backward()
    for one in maps:
        assert one.grad is not None
        assert one.grad.abs().sum() > 0
