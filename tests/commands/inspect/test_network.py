"""`inspect weights`, `activations` and `time` on small networks: what they write, and what they refuse."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detpipe.backbone.caffe.load import load_caffe, save_caffemodel
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import save_classifier
from detpipe.classify.images.network import (
    ImageClassifierSpec,
    build_image_classifier,
)
from detpipe.classify.images.settings import ViewConfig
from detpipe.commands.inspect import activations as inspect_activations
from detpipe.commands.inspect import time as inspect_time
from detpipe.commands.inspect import weights as inspect_weights
from detpipe.commands.inspect.network import images_and_labels, studied_network
from detpipe.commands.inspect.settings import InspectActivations, InspectTime, InspectWeights
from detpipe.datasets.image_file import read_image
from tests import drawn

LENET = BackboneConfig(name="caffe", prototxt="lenet", weights="none", mean=[0.0], scale=1 / 256)


def weights(folder: Path, **settings: Any) -> dict[str, Any]:
    inspect_weights.run(InspectWeights(run_dir=str(folder), **settings))
    found: dict[str, Any] = json.loads((folder / "inspect_weights.json").read_text())
    return found


def test_a_caffemodel_against_one_of_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    net = load_caffe("lenet")
    save_caffemodel(net, tmp_path / "before.caffemodel")
    with torch.no_grad():
        net.layers["ip2"].weight.mul_(1.5)  # type: ignore[operator, union-attr]
    save_caffemodel(net, tmp_path / "now.caffemodel")
    now, before = (str(tmp_path / f"{name}.caffemodel") for name in ("now", "before"))
    found = weights(tmp_path / "out", path=now, against=before, prototxt="lenet")
    change = found["change"]["parameters"]
    assert change["layers.conv1.weight"]["relative"] == 0
    assert change["layers.ip2.weight"] == {"relative": pytest.approx(0.5), "cosine": pytest.approx(1)}
    assert found["tensors"]["layers.conv1.weight"]["shape"] == [20, 1, 5, 5]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "inspect_filters.png",
        *(f"inspect_weights.{kind}" for kind in ("html", "json", "png")),
    ]
    assert "layers.ip2.weight" in caplog.text
    # Four rows of five filters of 5 x 5, enlarged alike.
    height, width = read_image(tmp_path / "out" / "inspect_filters.png").shape[:2]
    assert (width - 1) / 5 == (height - 1) / 4


def test_a_run_folders_classifier_and_what_is_not_finite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = ImageClassifierSpec(classes=("a", "b"), backbone=LENET, view=ViewConfig())
    network = build_image_classifier(spec, dropout=0.0, seed=0, pretrained=True)
    with torch.no_grad():
        network.head.linear.bias[0] = torch.nan  # type: ignore[index, union-attr]
    save_classifier(tmp_path / "classifier", network, spec)
    found = weights(tmp_path)
    assert found["tensors"]["head.linear.bias"]["nan"] == 1
    assert "NaN or infinity in: head.linear.bias" in caplog.text


def test_a_run_against_what_it_started_from(tmp_path: Path) -> None:
    net = load_caffe("lenet")
    save_caffemodel(net, tmp_path / "start.caffemodel")
    backbone = replace(LENET, weights=str(tmp_path / "start.caffemodel"))
    spec = ImageClassifierSpec(classes=("a", "b"), backbone=backbone, view=ViewConfig())
    network = build_image_classifier(spec, dropout=0.0, seed=0, pretrained=True)
    with torch.no_grad():
        network.backbone.network.layers["conv1"].weight.mul_(3)  # type: ignore[operator, union-attr, index]
    folder = tmp_path / "run" / "classifier"
    save_classifier(folder, network, spec)
    found = weights(tmp_path / "run", against="start")
    relative = {name: one["relative"] for name, one in found["change"]["parameters"].items()}
    assert relative["network.layers.conv1.weight"] == pytest.approx(2)
    assert relative["network.layers.ip1.weight"] == 0
    assert found["change"]["only_now"] == ["head.linear.bias", "head.linear.weight"]
    save_classifier(folder, network, replace(spec, backbone=LENET))
    with pytest.raises(ValueError, match=r"against=start: .*random"):
        weights(tmp_path / "run", against="start")
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        weights(tmp_path, path=str(tmp_path / "start.caffemodel"), against="start")


def test_what_inspect_weights_refuses(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(2, 3, 3, 3)}, tmp_path / "w.pth")
    path = str(tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="give path=FILE"):
        weights(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        weights(tmp_path, path=path, against=str(tmp_path / "nowhere.pth"))
    with pytest.raises(ValueError, match=r"layer: expected a tensor of filters .*\(conv\.weight\), got 'fc'"):
        weights(tmp_path, path=path, layer="fc")
    with pytest.raises(ValueError, match="filters: expected"):
        InspectWeights(filters=0)
    assert not (tmp_path / "inspect_weights.json").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors", "w.caffemodel"])
def test_hostile_files_of_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02cos\nsystem\n")
    with pytest.raises(ValueError, match=name):
        weights(tmp_path, path=str(tmp_path / name))


def test_activations_of_lenets_fillers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    drawn.write_jpeg(tmp_path / "one.jpg", drawn.draw(0)[0])
    settings = InspectActivations(
        run_dir=str(tmp_path), backbone=LENET, image=str(tmp_path / "one.jpg"), label=3, maps=9
    )
    inspect_activations.run(settings)
    found = json.loads((tmp_path / "inspect_activations.json").read_text())
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["conv1", "pool1", "conv2", "pool2", "ip1", "relu1", "ip2", "loss"]
    # Xavier: uniform within sqrt(3 / fan-in), whose standard deviation is sqrt(1 / fan-in).
    assert layers["ip1"]["weight"]["std"] == pytest.approx((1 / 800) ** 0.5, rel=0.02)
    assert found["training"]
    assert found["scale"]["activations"]["verdict"] == "holds"
    assert [path.name for path in sorted((tmp_path / "inspect_maps").iterdir())] == [
        *["01_conv1.png", "02_pool1.png", "03_conv2.png", "04_pool2.png"],
    ]
    inspect_activations.run(InspectActivations(run_dir=str(tmp_path), backbone=LENET, layers=["conv2"], batch=2))
    assert [path.name for path in (tmp_path / "inspect_maps").iterdir()] == ["01_conv2.png"]
    assert "Activations stay within 100 times" in caplog.text


def test_the_same_seed_gives_the_same_numbers() -> None:
    def losses(seed: int) -> float:
        config = InspectActivations(backbone=LENET, seed=seed, batch=2)
        studied = studied_network(config)
        images, labels, _ = images_and_labels(config, studied)
        return float(studied.loss(images, labels).detach())

    assert losses(5) == losses(5) != losses(6)


def test_a_trained_run(tmp_path: Path) -> None:
    spec = ImageClassifierSpec(classes=("a", "b", "c"), backbone=LENET, view=ViewConfig())
    save_classifier(tmp_path / "classifier", build_image_classifier(spec, dropout=0.0, seed=0, pretrained=True), spec)
    inspect_activations.run(InspectActivations(run_dir=str(tmp_path), batch=2))
    found = json.loads((tmp_path / "inspect_activations.json").read_text())
    assert found["layers"][-1]["shape"] == [2, 3]
    assert not found["training"]


def test_time_of_lenet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    inspect_time.run(InspectTime(run_dir=str(tmp_path), backbone=LENET, batch=4, iterations=2, warm_up=0))
    found = json.loads((tmp_path / "inspect_time.json").read_text())
    layers = {layer["name"]: layer for layer in found["layers"]}
    # 24 x 24 places, 20 filters of 25 numbers, 4 images.
    assert layers["conv1"]["multiply_adds"] == 24 * 24 * 20 * 25 * 4
    assert layers["conv1"]["output"] == 24 * 24 * 20 * 4 * 4
    assert found["parameters"] == 431_080
    assert {len(one) for one in (*found["whole"].values(), *found["watched"].values())} == {2}
    assert "sum of the layers" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {f"inspect_time.{kind}" for kind in ("json", "png", "html")}


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run_dir=DIR"):
        inspect_time.run(InspectTime(run_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="label: expected one of 0 to 9, got 10"):
        inspect_activations.run(InspectActivations(run_dir=str(tmp_path), backbone=LENET, label=10))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got ip1"):
        inspect_activations.run(InspectActivations(run_dir=str(tmp_path), backbone=LENET, layers=["ip1"]))
    with pytest.raises(FileNotFoundError, match="which has none"):
        inspect_activations.run(InspectActivations(run_dir=str(tmp_path), backbone=LENET, image=str(tmp_path)))
    for wrong in ({"batch": 0}, {"classes": 1}, {"iterations": 0}, {"warm_up": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            InspectTime(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="maps: expected"):
        InspectActivations(maps=0)


def test_a_wrong_layer_is_named_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_activations, "measure_signals", None)
    with pytest.raises(ValueError, match=r"layers: .* got conv22; did you mean conv2\?"):
        inspect_activations.run(InspectActivations(run_dir=str(tmp_path), backbone=LENET, layers=["conv22"]))
