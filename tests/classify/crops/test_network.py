"""R-CNN's network: its outputs, and dropout."""

from __future__ import annotations

import torch

from tests.classify import tiny


def test_shapes() -> None:
    network = tiny.classifier(3)
    logits, deltas = network(torch.from_numpy(tiny.crops(5)))
    assert logits.shape == (5, 4)
    assert deltas is not None
    assert deltas.shape == (5, 3, 4)
    assert network.features(torch.from_numpy(tiny.crops(5))).shape == (5, 8)
    logits, deltas = network(torch.from_numpy(tiny.crops(0)))
    assert logits.shape == (0, 4)
    assert deltas is not None
    assert deltas.shape == (0, 3, 4)


def test_without_box_regression() -> None:
    network = tiny.classifier(3, box_regression=False)
    assert network(torch.from_numpy(tiny.crops(2)))[1] is None
    assert not [name for name in network.state_dict() if "box" in name]


def test_dropout_acts_in_training_only() -> None:
    network = tiny.classifier(dropout=0.9)
    crops = torch.from_numpy(tiny.crops(4))
    assert not torch.equal(network(crops)[0], network(crops)[0])
    network.eval()
    assert torch.equal(network(crops)[0], network(crops)[0])
