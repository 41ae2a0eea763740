"""Written graphs: what is compared, what is refused, and a full disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from detpipe.classify.export.graph_file import Agreement, check_onnx_packages, compare, write_onnx
from detpipe.classify.export.onnx_graph import Graph
from detpipe.classify.export.traced_part import ExportError, traced
from detpipe.structures import Detections
from tests.classify import tiny
from tests.full_disk import error_on_full_disk

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(sorted(rows, key=lambda row: -row[4]), dtype=np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


ONE, OTHER = (0.0, 0.0, 10.0, 10.0, 0.8002, 1), (20.0, 0.0, 40.0, 10.0, 0.8, 2)


def test_agreement_by_hand() -> None:
    """The order does not matter, which a score of 0.8005 changes; another class, box or score does."""
    moved = (20.0, 0.0, 40.0, 10.25, 0.8005, 2)
    agreement = compare([(found(ONE, OTHER), found(moved, ONE))])
    assert (agreement.detections, agreement.same) == (4, 4)
    assert agreement.scores == pytest.approx(0.0005, abs=1e-6)
    assert agreement.pixels == 0.25
    for changed in ((*OTHER[:5], 1), (*OTHER[:4], 0.79, 2), (30.0, 0.0, 50.0, 10.0, 0.8, 2)):
        assert compare([(found(ONE, OTHER), found(ONE, changed))]).share == 0.5
    assert compare([(found(ONE, OTHER), found(ONE))]).share == pytest.approx(2 / 3)


def test_no_detections_agree() -> None:
    assert compare([(found(), found())]) == Agreement(0, 0, 0.0, 0.0)
    assert compare([]).share == 1


def small_model() -> onnx.ModelProto:
    graph = Graph()
    image = graph.input("image", np.uint8, ["height", "width", 3])
    graph.output(image + 1, "boxes", None)
    return graph.model({})


def test_a_graph_of_other_detections_is_refused_and_not_left(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="90 of 100"):
        write_onnx(small_model(), tmp_path / "one.onnx", lambda _: Agreement(100, 90, 0.0, 0.0))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_onnxruntime_rejects_is_refused(tmp_path: Path) -> None:
    model = small_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="onnxruntime rejects the graph"):
        write_onnx(model, tmp_path / "one.onnx", lambda _: Agreement(0, 0, 0.0, 0.0))
    assert list(tmp_path.iterdir()) == []


def write_small(path: Path) -> None:
    graph = Graph()
    image = graph.input("image", np.uint8, ["height", "width", 3])
    graph.output(image.to(np.float32) + graph.value(np.zeros(1 << 20), np.float32), "boxes", None)
    write_onnx(graph.model({}), path, lambda _: Agreement(0, 0, 0.0, 0.0))


def test_a_full_disk_is_an_error_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    path.write_bytes(b"old")
    assert "one.onnx: expected to write the file" in error_on_full_disk(write_small, path)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("one.onnx", b"old")]


class AsksForACount(nn.Module):
    """Works for three crops only: no graph has any number."""

    def forward(self, crops: Tensor) -> Tensor:
        return crops.float().flatten(1).mean(dim=1).reshape(3)


def test_a_network_without_a_graph_of_any_length_is_refused() -> None:
    import torch

    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        traced(AsksForACount(), {"crops": torch.from_numpy(tiny.crops(3))}, {"crops": {0: 1}})


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ImportError, match=r"no_such_package.*pip install 'detpipe\[export\]'"):
        check_onnx_packages(("numpy", "no_such_package"))


def test_outer_values_are_used_in_a_loop(tmp_path: Path) -> None:
    """The body doubles the round's number and adds a value from outside: 5, 7, 9."""
    import onnxruntime

    graph = Graph()
    given = graph.input("given", np.int64, [])
    (stacked,) = graph.loop(graph.value(3, np.int64), lambda inner, index: [(index * 2 + inner.use(given)).reshape(1)])
    graph.output(stacked, "stacked", None)
    (tmp_path / "one.onnx").write_bytes(graph.model({}).SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"given": np.array(5)})[0].tolist() == [[5], [7], [9]]
