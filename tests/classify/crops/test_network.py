"""The region classifier: its outputs, and that it comes back from disk as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import ClassifierError, check_classes
from detpipe.classify.crops.network import (
    ClassifierSpec,
    build_classifier,
    crop_config,
    load_classifier,
    load_spec,
    save_classifier,
)
from detpipe.classify.crops.settings import CropConfig, CropMode, Encoding
from detpipe.heads.region_head import HeadConfig
from detpipe.network.network_folder import NetworkFolderError
from detpipe.storage.manifest import plain
from tests.classify import tiny

SPEC = ClassifierSpec(
    classes=("cat", "dog", "guinea pig"),
    category_ids=(17, 18, 5),
    backbone=BackboneConfig(weights="none", input_size=32),
    crops=CropConfig(size=32, mode=CropMode.square, context_pad=4, fill=[1, 2, 3], encoding=Encoding.raw),
    box_regression=True,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    save_classifier(folder, build_classifier(SPEC, dropout=0.2, seed=3, pretrained=True), SPEC)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    for name in ("classifier.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


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


def test_the_seed_makes_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        network = build_classifier(SPEC, dropout=0.0, seed=seed, pretrained=True)
        return torch.cat([value.flatten().float() for value in network.state_dict().values()])

    torch.manual_seed(1)
    one, before = weights(5), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(weights(5), one)  # the backbone, which has no weights to load, as well
    assert not torch.equal(weights(6), one)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn from the caller's generator


def test_round_trip(saved: Path) -> None:
    network, spec = load_classifier(saved)
    assert spec == SPEC == load_spec(saved)
    assert not network.training
    crops = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    original = build_classifier(SPEC, dropout=0.2, seed=3, pretrained=True).eval()
    with torch.inference_mode():
        for ours, theirs in zip(network(crops), original(crops), strict=True):
            assert torch.equal(ours, theirs)


def test_the_same_classifier_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path, load_classifier(saved)[0], SPEC)
    for name in ("classifier.json", "weights.safetensors"):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier.json", "weights.safetensors"]


def test_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match=r"found no classifier\.json; run `detpipe train-cls`"):
        load_classifier(tmp_path)
    with pytest.raises(ClassifierError, match="wanted a trained classifier"):
        load_classifier(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: "{",
        lambda values: "[]",
        lambda values: json.dumps({name: value for name, value in values.items() if name != "classes"}),
        lambda values: json.dumps({**values, "classes": 3}),
        lambda values: json.dumps({**values, "backbone": {"name": "vgg"}}),
        lambda values: json.dumps({**values, "backbone": {"nane": "efficientnet_lite0"}}),
        lambda values: json.dumps({**values, "crops": {**values["crops"], "mode": "bent"}}),
        lambda values: json.dumps({**values, "crops": {**values["crops"], "size": 0}}),
    ],
)
def test_a_broken_description_is_named(copied: Path, spoil: Callable[[dict[str, object]], str]) -> None:
    path = copied / "classifier.json"
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(ClassifierError) as caught:
        load_classifier(copied)
    assert str(caught.value).startswith(f"{path}: wanted a classifier's description")
    assert "train it again" in str(caught.value)


@pytest.mark.parametrize("kept", [0, 5, 1000, -7])
def test_broken_weights_are_named(copied: Path, kept: int) -> None:
    path = copied / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(NetworkFolderError, match=r"weights\.safetensors: wanted this network's weights"):
        load_classifier(copied)


def test_missing_weights_and_those_of_another_are_named(copied: Path) -> None:
    path = copied / "classifier.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "classes": ["cat"], "category_ids": [17]}))
    with pytest.raises(NetworkFolderError, match=r"weights\.safetensors: wanted (?s:.)*size mismatch"):
        load_classifier(copied)
    (copied / "weights.safetensors").unlink()
    with pytest.raises(NetworkFolderError, match=r"weights\.safetensors"):
        load_classifier(copied)


def test_the_same_classes_pass() -> None:
    check_classes(SPEC, ["cat", "dog", "guinea pig"], "my set")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", "dog", "emu"], r"my set has the classes \['cat', 'dog', 'emu'\], .*it doesn't know \['emu'\]"),
        (["cat", "guinea pig", "dog"], "the order or number is another"),
        (["cat", "dog"], r"the order or number is another; give dataset\.classes=\[\.\.\.\]"),
        ([], "the order or number is another"),
    ],
)
def test_other_classes_are_refused(classes: list[str], words: str) -> None:
    with pytest.raises(ClassifierError, match=words):
        check_classes(SPEC, classes, "my set")


def test_crop_config_from_json() -> None:
    assert crop_config(json.loads(json.dumps(plain(SPEC.crops)))) == SPEC.crops
    with pytest.raises(ValueError, match="bent"):
        crop_config({**plain(SPEC.crops), "mode": "bent"})
    with pytest.raises(KeyError):
        crop_config({})


@pytest.mark.parametrize("values", [{"dropout": 1.0}, {"dropout": -0.1}, {"label_smoothing": 1.0}])
def test_head_settings(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="dropout and label_smoothing"):
        HeadConfig(**values)  # type: ignore[arg-type]
