"""What Caffe's debug_info shows, by hand on a network of one weight."""

from __future__ import annotations

import torch
from torch import nn

from detpipe.solver.debug_info import DebugInfo, l1_norm, l2_norm, mean_size


def test_by_hand() -> None:
    network = nn.Sequential()
    network.add_module("fc", nn.Linear(1, 1, bias=False))
    network.add_module("relu", nn.ReLU())
    with torch.no_grad():
        network[0].weight.fill_(2)
    info = DebugInfo(network)
    with info.watching():
        (network(torch.tensor([[3.0], [-1.0]])).sum() / 2).backward()
    assert info.take() == [
        "[Forward] layer fc, data: 4",  # |6| and |-2|
        "[Forward] layer relu, data: 3",
        "[Backward] layer relu, gradient: 0.5",
        "[Backward] layer fc, gradient: 0.25",  # nothing passes where the ReLU is closed
        "[Update] fc.weight, data: 2; gradient: 1.5",
        "[Update] all parameters (data, gradient): L1 norm = (2, 1.5); L2 norm = (2, 1.5)",
    ]
    network(torch.ones(1, 1))
    assert len(info.take()) == 2  # nobody looks outside of the block


def test_validation_is_not_looked_at() -> None:
    network = nn.Sequential(nn.Linear(1, 1))
    info = DebugInfo(network)
    with info.watching():
        network.eval()(torch.ones(1, 1))
    assert not [line for line in info.take() if "Forward" in line]


def test_sizes_and_norms() -> None:
    pair = [torch.tensor([3.0, -4.0]), torch.tensor([12.0])]
    assert (l1_norm(pair), l2_norm(pair), mean_size(pair[0])) == (19, 13, 3.5)
    assert (l1_norm([]), l2_norm([]), mean_size(None), mean_size(torch.zeros(0))) == (0, 0, 0, 0)
