"""The running average of weights, by hand."""

from __future__ import annotations

import torch
from torch import nn

from detpipe.solver.weight_average import WeightAverage


def test_by_hand() -> None:
    module = nn.BatchNorm1d(1)
    average = WeightAverage(module, 0.75)
    with torch.no_grad():
        module.weight.fill_(5)
        module.running_mean.fill_(8)
        module.num_batches_tracked.fill_(3)
    average.update()
    state = average.state()
    assert state["weight"].item() == 0.75 * 1 + 0.25 * 5
    assert state["running_mean"].item() == 0.25 * 8
    assert state["num_batches_tracked"].item() == 3
    average.update()
    assert state["weight"].item() == 0.75 * 2 + 0.25 * 5


def test_the_modules_own_weights_come_back_to_the_bit() -> None:
    module = nn.Linear(3, 2)
    average = WeightAverage(module, 0.5)
    with torch.no_grad():
        module.weight.mul_(1.1)
    average.update()
    own = module.weight.detach().clone()
    with average.in_place():
        assert not torch.equal(module.weight, own)
        torch.testing.assert_close(module.weight.detach(), average.state()["weight"], rtol=0, atol=0)
    assert torch.equal(module.weight, own)
    average.take_over()
    assert not torch.equal(module.weight, own)


def test_a_state_is_taken_up() -> None:
    one, two = WeightAverage(nn.Linear(3, 2), 0.5), WeightAverage(nn.Linear(3, 2), 0.5)
    two.load(one.state())
    torch.testing.assert_close(two.state(), one.state(), rtol=0, atol=0)


def test_nothing_to_average() -> None:
    average = WeightAverage(nn.ReLU(), 0.5)
    average.update()
    assert average.state() == {}
