"""Selection in the graph: the detections of `select_detections`."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.classify.detect import ScoredRegions, select_detections
from detpipe.classify.export.graph_file import compare
from detpipe.classify.export.onnx_graph import Graph, Value
from detpipe.classify.export.selection import decoded, limits, select
from detpipe.classify.settings import DetectConfig
from detpipe.structures import Detections
from tests.classify.export.running import ran, some_boxes

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("deltas", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        DetectConfig(),
        DetectConfig(nms_iou=0.5, vote_iou=0.6),
        DetectConfig(nms_iou=0.7, max_detections=7, score_floor=0.2),
    ],
    ids=["default", "vote", "few"],
)
def test_detections(config: DetectConfig, deltas: bool) -> None:
    generator = np.random.default_rng(1)
    boxes = some_boxes(80, 100, 120)
    probabilities = generator.dirichlet([0.3] * 4, 80).astype(np.float32)
    moves = generator.normal(0, 0.2, (80, 3, 4)).astype(np.float32) if deltas else None
    found = detections(boxes, probabilities, moves, config)
    wanted = select_detections(boxes, ScoredRegions(probabilities, moves), (100, 120), config)
    assert len(wanted) > 5
    agreement = compare([(found, wanted)])
    assert (agreement.share, agreement.scores) == (1, 0)
    assert agreement.pixels < 1e-3
    assert (np.diff(found.scores) <= 0).all()


def detections(
    boxes: np.ndarray, probabilities: np.ndarray, deltas: np.ndarray | None, config: DetectConfig
) -> Detections:
    inputs = {"boxes": boxes, "probabilities": probabilities} | ({} if deltas is None else {"deltas": deltas})

    def build(graph: Graph, boxes: Value, probabilities: Value, deltas: Value | None = None) -> list[Value]:
        moved = boxes.unsqueeze(1) if deltas is None else decoded(graph, boxes.unsqueeze(1), deltas)
        most = limits(graph, graph.value(100, np.int64), graph.value(120, np.int64))
        return list(select(graph, moved, probabilities, most, config))

    return Detections(*ran(inputs, build))


def test_voting_by_hand() -> None:
    """Two boxes of IoU 0.8 with scores 0.6 and 0.3: the mean is at a third of the way. The third is far away."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]], dtype=np.float32)
    probabilities = np.array([[0.4, 0.6], [0.7, 0.3], [0.5, 0.5]], dtype=np.float32)
    found = detections(boxes, probabilities, None, DetectConfig(nms_iou=0.5, vote_iou=0.7))
    np.testing.assert_allclose(found.boxes, [[0, 0, 10, 28 / 3], [50, 50, 60, 60]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.6, 0.5])
    assert found.labels.tolist() == [1, 1]


def test_what_is_below_the_floor_or_empty_is_not_detected() -> None:
    boxes = np.array([[0, 0, 10, 10], [130, 0, 140, 10]], dtype=np.float32)  # the second is outside
    probabilities = np.array([[0.995, 0.005], [0.1, 0.9]], dtype=np.float32)
    assert len(detections(boxes, probabilities, None, DetectConfig())) == 0
