"""Graphs of networks: the same numbers under onnxruntime and as torch's program, at any size and number of regions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone, FeatureMap
from detpipe.backbone.input_spec import InputSpec
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.crops.network import RcnnSpec
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.export import graph_file
from detpipe.classify.export.graph_file import ExportError, check_onnx_packages, exported, write_onnx, write_torch
from detpipe.classify.export.network_graph import NetworkGraph, graph_of_crops, graph_of_fast_rcnn
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig, Pooling
from detpipe.heads.fast_rcnn.truncated_svd import truncated
from detpipe.heads.region_head import BoxRegression
from tests.classify import tiny
from tests.full_disk import error_on_full_disk

FAST_RCNN = FastRcnnSpec(
    classes=("a", "b"), category_ids=(1, 2), backbone=BackboneConfig(), head=FastRcnnConfig(scales=[160])
)
RCNN = RcnnSpec(
    classes=("a", "b"),
    category_ids=(1, 2),
    backbone=BackboneConfig(),
    crops=CropConfig(size=tiny.SIDE),
    box_regression=True,
)


class Pyramid(Backbone):
    """Two maps, of strides 4 and 8: regions from 112 pixels up are pooled from the coarse one."""

    def __init__(self) -> None:
        maps = {"fine": FeatureMap(4, 8), "coarse": FeatureMap(8, 6)}
        super().__init__(InputSpec((32, 32), (127.0, 120.0, 110.0), (64.0, 60.0, 50.0)), 8, maps)
        self.fine, self.coarse = nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.Conv2d(8, 6, 3, stride=2, padding=1)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        return [("fine", self.fine), ("coarse", self.coarse)]

    def forward_maps(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        fine = self.fine(x).relu()
        maps = {"fine": fine, "coarse": self.coarse(fine)}
        return {name: maps[name] for name in names}


def fast_rcnn(**more: object) -> FastRcnn:
    """One whose results differ from region to region."""
    settings = {"maps": ["fine", "coarse"], "merge_width": 8, "pool_size": 3, "hidden": 16, **more}
    head = FastRcnnConfig(**settings)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = FastRcnn(Pyramid(), 2, head, seed=0).eval()
    with torch.no_grad():
        for layer in (network.head, network.box_regressor):
            if layer is not None:
                layer.linear.weight.mul_(100)
    return network


@pytest.mark.parametrize(
    ("more", "results"),
    [({}, 2), ({"pooling": Pooling.pool, "box_regression": BoxRegression.none}, 1)],
    ids=["align", "pool, no deltas"],
)
def test_fast_rcnn_under_onnxruntime(more: dict[str, object], results: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = fast_rcnn(**more)
    graph = graph_of_fast_rcnn(network, FAST_RCNN)
    assert write_onnx(graph, tmp_path / "one.onnx") <= 1e-5
    context = onnxruntime.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    assert [one["name"] for one in graph.inputs] == [one.name for one in context.get_inputs()]
    assert [one["shape"] for one in graph.inputs] == [one.shape for one in context.get_inputs()]
    # A size that the graph was not tried at, with boxes of one level only, of both, and with none.
    pixels = np.random.default_rng(7).integers(0, 256, (1, 131, 177, 3), dtype=np.uint8)
    boxes = np.array([[2, 3, 9, 12], [10, 0, 30, 20], [40, 90, 177, 131]], dtype=np.float32)
    for regions in (boxes, np.concatenate([boxes, [[0, 0, 177, 131]]]).astype(np.float32), boxes[:0]):
        found = context.run(None, {"image": pixels, "boxes": regions})
        with torch.no_grad():
            logits, deltas = network(torch.from_numpy(pixels), nn.functional.pad(torch.from_numpy(regions), (1, 0)))
        wanted = [logits.softmax(dim=1), deltas][:results]
        assert len(found) == results
        for ours, theirs in zip(wanted, found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5)


def test_crops_under_onnxruntime(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = tiny.confident(tiny.classifier())
    assert write_onnx(graph_of_crops(network, RCNN), tmp_path / "one.onnx") <= 1e-5
    context = onnxruntime.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    for count in (7, 1, 0):
        crops = tiny.crops(count)
        probabilities, deltas = context.run(None, {"crops": crops})
        with torch.no_grad():
            logits, wanted = network(torch.from_numpy(crops))
        assert wanted is not None
        np.testing.assert_allclose(probabilities, logits.softmax(dim=1).numpy(), atol=1e-5)
        np.testing.assert_allclose(deltas, wanted.numpy(), atol=1e-5)


def test_a_program_of_a_compressed_head(tmp_path: Path) -> None:
    network = fast_rcnn()
    assert isinstance(network.fc1, nn.Linear)
    network.fc1 = truncated(network.fc1, 5)
    assert write_torch(graph_of_fast_rcnn(network, FAST_RCNN), tmp_path / "one.pt2") == 0
    module = torch.export.load(tmp_path / "one.pt2").module()
    pixels = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (1, 131, 177, 3), dtype=np.uint8))
    boxes = torch.tensor([[2.0, 3, 9, 12], [0, 0, 177, 131]])
    probabilities, deltas = module(pixels, boxes)
    with torch.no_grad():
        logits, wanted = network(pixels, nn.functional.pad(boxes, (1, 0)))
    torch.testing.assert_close(probabilities, logits.softmax(dim=1))
    torch.testing.assert_close(deltas, wanted)


class Twice(nn.Module):
    """Gives another result each time."""

    calls = 0

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return (crops.float().flatten(1).mean(dim=1, keepdim=True) + self.calls,)


class Nothing(nn.Module):
    """Gives no numbers."""

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        return (crops.float().flatten(1).mean(dim=1, keepdim=True) * float("nan"),)


class AsksForACount(nn.Module):
    """Does one thing for three crops, another for more: no graph has both."""

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        return (crops.float().flatten(1).mean(dim=1).reshape(3),)


def graph_with(network: nn.Module) -> NetworkGraph:
    return dataclasses.replace(graph_of_crops(tiny.classifier(), RCNN), network=network)


@pytest.mark.parametrize("network", [Twice(), Nothing()], ids=["other", "none"])
def test_a_graph_of_other_numbers_is_refused_and_not_left(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"differ by .*0\.001"):
        write_torch(graph_with(network), tmp_path / "one.pt2")
    assert list(tmp_path.iterdir()) == []


class Large(nn.Module):
    """Has 2 MiB of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1 << 19))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        return (crops.float().flatten(1).mean(dim=1, keepdim=True) + self.weight[0],)


def write_large(path: Path) -> None:
    write_torch(graph_with(Large()), path)


def test_a_full_disk_is_an_error_and_the_old_file_stays(tmp_path: Path) -> None:
    """torch's own writer would end the process with SIGABRT."""
    path = tmp_path / "one.pt2"
    path.write_bytes(b"old")
    assert "one.pt2: expected to write the file" in error_on_full_disk(write_large, path)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("one.pt2", b"old")]


def test_a_network_without_a_graph_of_any_length_is_refused() -> None:
    with pytest.raises(ExportError, match="cannot be exported with dynamic sizes"):
        exported(graph_with(AsksForACount()))


def test_a_missing_package_is_named() -> None:
    with (
        mock.patch.object(graph_file, "ONNX_PACKAGES", ("numpy", "no_such_package")),
        pytest.raises(ImportError, match=r"pip install 'detpipe\[export\]'"),
    ):
        check_onnx_packages()


def test_inputs_are_plain() -> None:
    inputs = graph_of_fast_rcnn(fast_rcnn(), FAST_RCNN).inputs
    assert json.loads(json.dumps(inputs)) == [
        {"name": "image", "dtype": "uint8", "shape": [1, "height", "width", 3]},
        {"name": "boxes", "dtype": "float32", "shape": ["regions", 4]},
    ]
