"""The whole flow with nets of Caffe's as backbones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from detpipe.backbone.caffe.net_spec import NetSpec
from detpipe.classify.kinds import load_classifier
from detpipe.network.network_folder import NET
from tests import drawn
from tests.command_line import detpipe


def train(run: Path, *settings: str) -> Path:
    """Train on the run's crops, and return the classifier's folder."""
    own = [word for word in drawn.settings("train-cls") if not word.startswith("backbone.")]
    outcome = detpipe("train-cls", *own, "backbone=caffe", *settings, f"run_dir={run}", "overwrite=true")
    assert outcome.status == 0, outcome.err
    return run / "classifier"


def test_a_classifier_needs_its_text_and_mean_no_more(run_copy: Path, tmp_path: Path) -> None:
    text = """
        layer { name: "data" type: "Data" top: "data" top: "label" transform_param { mean_value: [9, 8, 7] } }
        layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3
                stride: 4 weight_filler { type: "msra" } } }
        layer { name: "f" type: "InnerProduct" bottom: "c" top: "f" inner_product_param { num_output: 5 } }
    """
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(text)
    folder = train(run_copy, f"backbone.prototxt={prototxt}", "backbone.weights=none", "head.freeze_stages=0")
    assert (folder / NET).read_text() == text
    stored = json.loads((folder / "classifier.json").read_text())["backbone"]
    assert (stored["mean"], stored["scale"]) == ([9, 8, 7], 1)
    prototxt.unlink()
    moved = shutil.copytree(folder, tmp_path / "moved")
    network, spec = load_classifier(moved)
    side = spec.crops.size
    crops = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(network(crops)[0], load_classifier(folder)[0](crops)[0])
    assert network.backbone.spec.mean == (9, 8, 7)


def test_another_text_is_another_training(run_copy: Path, tmp_path: Path) -> None:
    prototxt = tmp_path / "net.prototxt"
    files = [f"backbone.prototxt={prototxt}", "backbone.weights=none", "backbone.mean=[0]", "head.freeze_stages=0"]
    prototxt.write_text(convolution(4))
    train(run_copy, *files)
    prototxt.write_text(convolution(6))
    own = [word for word in drawn.settings("train-cls") if not word.startswith("backbone.")]
    outcome = detpipe("train-cls", *own, "backbone=caffe", *files, f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "prototxt" in outcome.err


def convolution(outputs: int) -> str:
    """A net of one convolution of so many outputs, and a classifier."""
    net = NetSpec()
    conv = net.add("Convolution", net.input("a", (1, 3, 32, 32)), name="c", num_output=outputs, kernel_size=3, stride=4)
    net.add("InnerProduct", conv, name="f", num_output=5)
    return net.prototxt()


def test_lenet_and_squeezenet_find_things(shared_data: Path, voc_root: Path, tmp_path: Path) -> None:
    lenet, squeezenet = shared_data / "caffe/lenet_ethereon", shared_data / "caffe/squeezenet_v1.1"
    for name, size, settings in (
        (
            "lenet", 28,
            [f"backbone.prototxt={lenet}/lenet.prototxt", f"backbone.weights={lenet}/lenet_iter_10000.caffemodel",
             "backbone.mean=[0]", "backbone.scale=0.00390625", "head.freeze_stages=1"],
        ),
        (
            "squeezenet", 64,
            [f"backbone.prototxt={squeezenet}/train_val.prototxt",
             f"backbone.weights={squeezenet}/squeezenet_v1.1.caffemodel", "head.freeze_stages=2"],
        ),
    ):  # fmt: skip
        own = [
            word
            for word in drawn.settings("run")
            if not word.startswith(("backbone.", "crops.size", "head.freeze_stages"))
        ]
        outcome = detpipe(
            "run",
            *drawn.voc(voc_root),
            *own,
            "backbone=caffe",
            *settings,
            f"crops.size={size}",
            f"run_dir={tmp_path / name}",
        )
        assert outcome.status == 0, outcome.err
        assert json.loads((tmp_path / name / "detections.json").read_text())
