"""The running average of weights, by hand."""

from __future__ import annotations

import torch
from torch import nn

from detpipe.solver.weight_average import averaged_weights, moving_average


def test_by_hand() -> None:
    module = nn.BatchNorm1d(1)
    average = moving_average(module, 0.75)
    with torch.no_grad():
        module.weight.fill_(5)
        module.running_mean.fill_(8)
        module.num_batches_tracked.fill_(3)
    average.update_parameters(module)
    state = average.module.state_dict()
    assert state["weight"].item() == 0.75 * 1 + 0.25 * 5
    assert state["running_mean"].item() == 0.25 * 8
    assert state["num_batches_tracked"].item() == 3
    average.update_parameters(module)
    assert state["weight"].item() == 0.75 * 2 + 0.25 * 5


def test_the_modules_own_weights_come_back_to_the_bit() -> None:
    module = nn.Linear(3, 2)
    average = moving_average(module, 0.5)
    with torch.no_grad():
        module.weight.mul_(1.1)
    average.update_parameters(module)
    own = module.weight.detach().clone()
    with averaged_weights(module, average):
        assert not torch.equal(module.weight, own)
        assert torch.equal(module.weight, average.module.weight)
    assert torch.equal(module.weight, own)
    with averaged_weights(module, None):
        assert torch.equal(module.weight, own)


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    module, other = nn.Linear(3, 2), nn.Linear(3, 2)
    one, two = moving_average(module, 0.5), moving_average(other, 0.5)
    one.update_parameters(module)
    two.load_state_dict(one.state_dict())
    for average in (one, two):
        average.update_parameters(other)
    torch.testing.assert_close(two.state_dict(), one.state_dict(), rtol=0, atol=0)


def test_integer_buffers_are_copied() -> None:
    """torch's own average truncates: with a decay of 0.9 it turns some indices into the number below."""
    module = nn.Linear(1, 1)
    module.register_buffer("index", torch.arange(1000))
    average = moving_average(module, 0.9)
    for _ in range(3):
        average.update_parameters(module)
    assert torch.equal(average.module.index, torch.arange(1000))
