"""A convolution and its batch norm as one: the same numbers and gradients as one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detpipe.backbone.depthwise_conv import DepthwiseConv2d
from detpipe.backbone.folded_batch_norm import convolved_and_normed


def layers(groups: int = 1, *, bias: bool = False, affine: bool = True) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """In double precision and evaluation mode, with statistics unlike those of a new norm."""
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias).double()
    norm = nn.BatchNorm2d(8, eps=1e-3, affine=affine).double().eval()
    with torch.no_grad():
        for tensor in (*convolution.parameters(), *norm.parameters(), norm.running_mean):
            assert tensor is not None
            tensor.normal_(generator=generator)
        assert norm.running_var is not None
        norm.running_var.uniform_(0.2, 3, generator=generator)
    return convolution, norm


def image(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_as_one_after_the_other(groups: int, bias: bool, affine: bool) -> None:
    convolution, norm = layers(groups, bias=bias, affine=affine)
    if groups > 1:
        convolution = DepthwiseConv2d.sharing(convolution)
    x = image().requires_grad_()
    weights = [x, *convolution.parameters(), *norm.parameters()]
    plain, folded = norm(convolution(x)), convolved_and_normed(convolution, norm, x)
    torch.testing.assert_close(folded, plain)
    upstream = torch.randn(plain.shape, dtype=torch.float64)
    wanted, got = (torch.autograd.grad(one, weights, upstream) for one in (plain, folded))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_no_images_give_no_maps() -> None:
    assert convolved_and_normed(*layers(), image(0)).shape == (0, 8, 4, 5)


def test_a_norm_in_training_counts() -> None:
    convolution, norm = layers()
    norm.train()
    before = norm.running_mean.clone() if norm.running_mean is not None else None
    convolved_and_normed(convolution, norm, image())
    assert before is not None
    assert not torch.equal(torch.as_tensor(norm.running_mean), before)


@pytest.mark.parametrize("which", [0, 1])
def test_who_watches_sees_both(which: int) -> None:
    both = layers()
    seen: list[tuple[int, ...]] = []
    both[which].register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    convolved_and_normed(*both, image())
    assert seen == [(2, 8, 4, 5)]


def test_a_norm_without_statistics_counts_those_of_the_batch() -> None:
    convolution = nn.Conv2d(4, 8, 3).double()
    norm = nn.BatchNorm2d(8, track_running_stats=False).double().eval()
    torch.testing.assert_close(convolved_and_normed(convolution, norm, image()), norm(convolution(image())))
