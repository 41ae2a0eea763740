"""Kept weights: the results of the layer itself, and those of new weights after any change."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detpipe.backbone import kept_weights as module
from detpipe.backbone.efficientnet_lite import convolved_and_normed
from detpipe.backbone.kept_weights import Linear, kept_weights


def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(3, 2)


X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]])


def in_bf16(one: nn.Module, x: Tensor = X) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found: Tensor = one(x)
        return found


def plain(one: nn.Linear, x: Tensor = X) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        return F.linear(x, one.weight, one.bias)


def test_the_result_is_that_of_a_linear_layer() -> None:
    one = layer()
    for _ in range(2):
        assert torch.equal(in_bf16(one), plain(one))
        with torch.inference_mode():
            assert torch.equal(one(X), F.linear(X, one.weight, one.bias))
    assert in_bf16(one, X[:0]).shape == (0, 2)


def test_weights_are_made_once() -> None:
    one, made = layer(), []

    def make() -> tuple[Tensor, ...]:
        made.append(1)
        return (one.weight,)

    with torch.no_grad():
        first, second = kept_weights(one, [one.weight], make), kept_weights(one, [one.weight], make)
    assert len(made) == 1
    assert first[0] is second[0]


def step(one: nn.Linear) -> None:
    one(X).sum().backward()
    torch.optim.SGD(one.parameters(), lr=1.0).step()


def fused_step(one: nn.Linear) -> None:
    one(X).sum().backward()
    torch.optim.AdamW(one.parameters(), lr=1.0, fused=True).step()


def foreach_step(one: nn.Linear) -> None:
    one(X).sum().backward()
    torch.optim.AdamW(one.parameters(), lr=1.0, foreach=True).step()


def load(one: nn.Linear) -> None:
    one.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})


def move(one: nn.Linear) -> None:
    one.weight.data = one.weight.data + 1


def replace(one: nn.Linear) -> None:
    one.weight = nn.Parameter(one.weight.detach() + 1)


@pytest.mark.parametrize("change", [step, fused_step, foreach_step, load, move, replace])
def test_changed_parameters_are_noticed(change: Callable[[nn.Linear], None]) -> None:
    one = layer()
    before = in_bf16(one)
    change(one)
    assert torch.equal(in_bf16(one), plain(one))
    assert not torch.equal(in_bf16(one), before)


def test_learned_weights_get_gradients_after_a_pass_without() -> None:
    one = layer()
    in_bf16(one)
    one(X).sum().backward()
    assert one.weight.grad is not None
    assert one.weight.grad.tolist() == [X.sum(dim=0).tolist()] * 2


@pytest.mark.parametrize("bf16", [False, True])
def test_frozen_weights_pass_gradients_to_their_input(bf16: bool) -> None:
    one = layer().requires_grad_(False)
    x = X.clone().requires_grad_()
    context = torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext()
    with torch.inference_mode(), context:
        one(X)
    with context:
        one(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, one.weight.sum(dim=0).expand(2, 3), rtol=0.02, atol=0.02)


def test_statistics_of_a_norm_are_noticed() -> None:
    """Training changes them without a trace in the tensors."""
    convolution, norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        norm.eval()
        with torch.inference_mode():
            torch.testing.assert_close(convolved_and_normed(convolution, norm, x), norm(convolution(x)))
        norm.train()
        convolved_and_normed(convolution, norm, x)


def test_nothing_is_kept_of_a_layer_that_is_gone() -> None:
    one = layer()
    gc.collect()
    before = len(module._kept)
    in_bf16(one)
    assert len(module._kept) == before + 1
    del one
    gc.collect()
    assert len(module._kept) == before
