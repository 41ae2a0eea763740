from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from detpipe.backbone.backbone import meta_copy
from detpipe.backbone.efficientnet_lite import EfficientNetLite0


def trainable(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def step(network: EfficientNetLite0) -> None:
    """One step of plain gradient descent on noise."""
    generator = torch.Generator().manual_seed(1)
    network(torch.randn(4, 3, 32, 32, generator=generator)).square().sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad


def changed(before: dict[str, torch.Tensor], network: nn.Module) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def test_frozen_stages_and_batch_norm_stay_the_same_bytes() -> None:
    network = EfficientNetLite0()
    network.freeze(stages=3, batch_norm=True)
    network.train()
    before = copy.deepcopy(network.state_dict())
    step(network)
    names = changed(before, network)
    assert "conv_head.weight" in names
    assert "blocks.2.0.conv_dw.weight" in names
    assert not any(".bn" in name or name.startswith(("conv_stem", "bn", "blocks.0.", "blocks.1.")) for name in names)


def test_running_batch_norm_moves_but_not_in_a_frozen_stage() -> None:
    network = EfficientNetLite0()
    network.freeze(stages=1, batch_norm=False)
    network.train()
    before = copy.deepcopy(network.state_dict())
    step(network)
    names = changed(before, network)
    assert {"bn2.running_mean", "blocks.0.0.bn1.weight", "blocks.0.0.bn1.running_var"} <= names
    assert not names & {"bn1.running_mean", "bn1.weight", "conv_stem.weight"}


def test_frozen_depthwise_kernels() -> None:
    network = EfficientNetLite0()
    network.freeze(depthwise=True, batch_norm=False)
    names = trainable(network)
    assert not any("conv_dw" in name for name in names)
    assert {"conv_stem.weight", "blocks.0.0.conv_pw.weight", "bn1.weight"} <= names
    assert len(network.depthwise_modules()) == 16


def test_freeze_says_everything_anew() -> None:
    network = EfficientNetLite0()
    everything = trainable(network)
    network.freeze(stages=9, depthwise=True)
    assert trainable(network) == {"classifier.weight", "classifier.bias"}
    network.freeze(batch_norm=False)
    assert trainable(network) == everything
    assert all(module.training for module in network.train().modules())
    with pytest.raises(ValueError, match=r"0 to 9 stages of \['stem', 'blocks.0'.*got 10"):
        network.freeze(stages=10)


def test_freeze_keeps_the_mode() -> None:
    network = EfficientNetLite0().eval()
    network.freeze(stages=1)
    assert not any(module.training for module in network.modules())


def test_fast_backward_gives_the_same_training_step() -> None:
    plain = EfficientNetLite0()
    plain.freeze()
    plain.train()
    fast = copy.deepcopy(plain)
    fast.use_fast_depthwise_backward()
    for network in (plain, fast):
        step(network)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    for want, got in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)


def test_no_images_train_nothing() -> None:
    network = EfficientNetLite0()
    network.freeze()
    network.use_fast_depthwise_backward()
    network.train()(torch.zeros(0, 3, 32, 32)).sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in network.parameters())


def test_classify_without_classifier() -> None:
    network = EfficientNetLite0()
    network.classifier = None
    with pytest.raises(ValueError, match="ImageNet classifier"):
        network.classify(torch.zeros(1, 3, 32, 32))


def test_meta_copy_shares_nothing() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    probe = meta_copy(network).eval()
    assert probe(torch.empty(5, 3, device="meta")).shape == (5, 2)
    assert network[0].weight.device.type == "cpu"
    assert probe.state_dict().keys() == network.state_dict().keys()
