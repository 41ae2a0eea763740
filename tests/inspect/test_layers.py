from __future__ import annotations

import torch
from torch import Tensor, nn

from detpipe.inspect.layers import Call, layers_of, tensors_in, watching


class Twice(nn.Module):
    """A layer that works two times, and attention, which has modules that it doesn't call."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attention(self.act(x), x, x)
        return self.act(y)


def test_layers_in_the_order_in_which_they_work() -> None:
    network, seen = Twice(), list[tuple[str, str, int, int]]()

    def after(call: Call, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        seen.append((call.name, call.kind, call.turn, len(outputs)))

    with watching(network, after=after):
        network(torch.ones(3, 1, 4))
    assert seen == [("act", "ReLU", 1, 1), ("attention", "MultiheadAttention", 1, 2), ("act (2)", "ReLU", 2, 1)]
    network(torch.ones(3, 1, 4))
    assert len(seen) == 3


def test_a_layer_alone_and_a_network_without_any() -> None:
    assert list(layers_of(nn.Linear(1, 1))) == ["Linear"]
    assert list(layers_of(nn.Sequential(nn.Sequential(nn.Flatten()), nn.ReLU()))) == ["0.0", "1"]


def test_tensors_in_containers() -> None:
    a, b = torch.ones(1), torch.ones(2)
    assert [len(one) for one in tensors_in(({"x": a}, [b, None, "text"], 3))] == [1, 2]
    assert tensors_in(None) == ()
