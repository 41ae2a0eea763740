"""The part of a training that regions and whole images share; their own tests run it."""

from __future__ import annotations

import logging

import pytest

from detpipe.backbone.create import create_backbone
from detpipe.backbone.fine_tuning import FineTuningConfig
from detpipe.backbone.settings import BackboneConfig
from detpipe.network.train_network import freeze, training_key


def test_what_is_only_watched_is_not_in_the_key() -> None:
    one = {"solver": {"max_iter": 5, "display": 1, "snapshot": 7, "snapshot_keep": 2, "test_interval": 3}, "seed": 0}
    assert training_key(one) == {"solver": {"max_iter": 5}, "seed": 0}
    assert training_key({}) == {}


def test_random_weights_are_not_frozen(caplog: pytest.LogCaptureFixture) -> None:
    backbone = create_backbone(BackboneConfig(weights="none"))
    learning = FineTuningConfig(freeze_stages=3, freeze_depthwise=True, freeze_batch_norm=False)
    freeze(backbone, learning, has_weights=False)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert "backbone.weights=none: the network has random weights, so all of it is trained" in caplog.text
    assert "3 stages and the depthwise kernels" in caplog.text


def test_weights_of_a_file_are_frozen_as_the_settings_say(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    backbone = create_backbone(BackboneConfig(weights="none"))
    freeze(backbone, FineTuningConfig(freeze_stages=3), has_weights=True)  # solver.weights
    stages = [any(p.requires_grad for p in stage.parameters()) for _, stage in backbone.stages]
    assert stages == [False] * 3 + [True] * (len(stages) - 3)
    freeze(backbone, FineTuningConfig(freeze_stages=0), has_weights=False)
    assert not caplog.text
