"""RoIAlign in compiled code: values and gradients by hand and torchvision's; the same bytes for any threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from detpipe.heads.fast_rcnn.roi_align import LANES, PARALLEL_FROM, align


def regions_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def pooled_from(one: Tensor, regions: Tensor, stride: int = 1, size: int = 1) -> Tensor:
    return align([one], [stride], regions, torch.zeros(len(regions), dtype=torch.int64), size)


def random_regions(count: int) -> Tensor:
    """In two images of 160 pixels: also empty ones, ones with swapped corners, and ones that lie outside."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((count, 2), generator=generator) * 240 - 40
    sides = torch.rand((count, 2), generator=generator) ** 2 * 160 - 10
    sides[::7] = 0
    return torch.cat([torch.arange(count)[:, None] % 2, corners, corners + sides], dim=1)


def random_map(channels: int, side: int = 20) -> Tensor:
    return torch.randn((2, channels, side, side), generator=torch.Generator().manual_seed(1))


def test_a_bin_is_the_mean_of_four_samples() -> None:
    """The region from 1 to 3 has its samples at the centres of the cells 1 and 2 of each axis."""
    one = torch.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
    pooled = pooled_from(one, regions_of((0, 1, 1, 3, 3)))
    assert pooled.tolist() == [[[[(5 + 6 + 9 + 10) / 4]]]]
    pooled.backward(torch.full((1, 1, 1, 1), 8.0))
    assert one.grad is not None
    expected = torch.zeros(4, 4)
    expected[1:3, 1:3] = 2
    assert one.grad[0, 0].tolist() == expected.tolist()


def test_a_sample_between_cells_is_interpolated() -> None:
    """The region from 1 to 2 has its samples a quarter of a cell beside the centre of cell 1."""
    one = torch.zeros(1, 1, 1, 4)
    one[0, 0, 0, 1] = 1
    pooled = pooled_from(one, regions_of((0, 1, 0, 2, 1)))
    assert pooled.item() == 0.75


def test_samples_outside_the_map_take_its_border_and_are_zero_beyond_one_cell() -> None:
    one = torch.ones(1, 1, 4, 4)
    inside, far, half = (0, 3.5, 3.5, 4.5, 4.5), (0, 9, 9, 12, 12), (0, -4, 0, 4, 4)
    assert pooled_from(one, regions_of(inside, far, half)).flatten().tolist() == [1, 0, 0.5]


def test_regions_that_are_not_numbers_give_zero() -> None:
    bad = regions_of((0, float("nan"), 0, 4, 4), (0, 0, 0, float("inf"), 4), (0, 0, -1e30, 4, 1e30))
    assert pooled_from(torch.ones(1, 1, 4, 4), bad).flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 5, 3 * LANES + 1])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_values_and_gradients_are_torchvisions(layout: torch.memory_format, channels: int, size: int) -> None:
    one = random_map(channels).contiguous(memory_format=layout).requires_grad_()
    regions = random_regions(200)
    expected = roi_align(one, regions, size, 1 / 8, 2, aligned=True)
    pooled = pooled_from(one, regions, 8, size)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (wanted,) = torch.autograd.grad(expected, one, upstream)
    (gradient,) = torch.autograd.grad(pooled, one, upstream)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


def test_gradients_are_finite_differences() -> None:
    """Pooling is linear in the map, so a step of 1 makes no error beyond rounding."""
    one = random_map(2, side=6).requires_grad_()
    regions = random_regions(12)
    upstream = torch.randn((12, 2, 3, 3), generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((pooled_from(one, regions, 27, 3) * upstream).sum(), one)
    with torch.no_grad():
        base = pooled_from(one, regions, 27, 3)
        for place in range(0, one.numel(), 5):
            step = torch.zeros(one.numel())
            step[place] = 1
            moved = pooled_from(one + step.reshape(one.shape), regions, 27, 3)
            difference = ((moved - base).double() * upstream).sum()
            assert float(difference) == pytest.approx(float(gradient.flatten()[place]), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [5, 3 * LANES + 1])
def test_any_number_of_threads_gives_the_same_bytes(
    dtype: torch.dtype, channels: int, use_threads: Callable[[int], None]
) -> None:
    found = []
    regions = random_regions(2 * PARALLEL_FROM)
    levels = torch.arange(len(regions)) % 2
    for threads in (1, 2, 3, 7):
        use_threads(threads)
        maps = [random_map(channels, side).to(dtype).requires_grad_() for side in (20, 10)]
        pooled = align(maps, [8, 16], regions, levels, 3)
        pooled.square().sum().backward()
        found.append([pooled.detach(), *(one.grad for one in maps)])
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert one is not None
            assert same is not None
            assert torch.equal(one, same)


def test_bf16_is_summed_in_float32_and_rounded_once() -> None:
    one = random_map(6).bfloat16()
    one[0, 0], one[0, 1], one[0, 2] = float("nan"), float("inf"), -float("inf")
    one.requires_grad_()
    regions = random_regions(50)
    exact = one.detach().float().requires_grad_()
    pooled, wanted = pooled_from(one, regions, 8, 3), pooled_from(exact, regions, 8, 3)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled.nan_to_num(nan=1234.0), wanted.bfloat16().nan_to_num(nan=1234.0))
    assert bool(pooled.isnan().any())
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    pooled.backward(upstream)
    wanted.backward(upstream.float())
    assert one.grad is not None
    assert exact.grad is not None
    assert one.grad.dtype == torch.bfloat16
    assert torch.equal(one.grad, exact.grad.bfloat16())


@pytest.mark.parametrize("threads", [1, 2])
def test_no_regions(threads: int, use_threads: Callable[[int], None]) -> None:
    use_threads(threads)
    one = torch.zeros(2, 5, 8, 8, requires_grad=True)
    pooled = pooled_from(one, regions_of(), 8, 7)
    assert pooled.shape == (0, 5, 7, 7)
    pooled.sum().backward()
    assert one.grad is not None
    assert one.grad.shape == one.shape
    assert float(one.grad.abs().sum()) == 0
