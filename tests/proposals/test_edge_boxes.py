"""Edge boxes: the errors, and the method on edges that a stand-in for the model draws."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.boxes import iou
from detpipe.proposals import edge_boxes as module
from detpipe.proposals.edge_boxes import EdgeBoxes, load_edge_model
from detpipe.proposals.selective_search.opencv import MissingXimgprocError


class SobelEdges:
    """In the place of the structured forest: strength and direction of the gradient."""

    def detectEdges(self, image):  # noqa: N802
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        grey = image.mean(axis=2)
        strength = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        return (strength / max(strength.max(), 1e-6)).astype(np.float32)

    def computeOrientation(self, edges):  # noqa: N802
        dx, dy = cv2.Sobel(edges, cv2.CV_32F, 1, 0), cv2.Sobel(edges, cv2.CV_32F, 0, 1)
        return np.mod(np.arctan2(dy, dx), np.pi).astype(np.float32)

    def edgesNms(self, edges, orientation):  # noqa: N802
        return edges


@pytest.fixture
def with_stand_in(monkeypatch: pytest.MonkeyPatch) -> EdgeBoxes:
    monkeypatch.setattr(module, "load_edge_model", lambda path: SobelEdges())
    return EdgeBoxes(model="model.yml.gz")


def test_finds_a_drawn_thing(with_stand_in: EdgeBoxes):
    image = np.full((120, 160, 3), 40, np.uint8)
    cv2.rectangle(image, (40, 30), (110, 90), (220, 220, 220), -1)
    found = with_stand_in(image)
    assert len(found) > 0
    assert iou(np.array([[40, 30, 111, 91]], np.float32), found.boxes).max() > 0.6
    again = with_stand_in(image)
    assert found.boxes.tobytes() == again.boxes.tobytes()


def test_nothing_to_see_and_tiny_images_give_nothing(with_stand_in: EdgeBoxes):
    for size in ((120, 160), (1, 1), (31, 500)):
        found = with_stand_in(np.zeros((*size, 3), np.uint8))
        assert found.boxes.shape == (0, 4)


def test_missing_and_wrong_models_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"proposals\.model"):
        EdgeBoxes().check()
    with pytest.raises(FileNotFoundError, match="no such file"):
        EdgeBoxes(model=str(tmp_path / "no.yml.gz")).check()
    for number, content in enumerate(
        (b"", b"garbage", b"%YAML:1.0\n---\na: 1\n", b"%YAML:1.0\n---\noptions:\n   stride: 2\n")
    ):
        wrong = tmp_path / f"{number}.yml"
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match=r"expected OpenCV's structured-forest model"):
            load_edge_model(str(wrong))


def test_missing_ximgproc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(MissingXimgprocError):
        EdgeBoxes(model="x").check()


def test_wrong_settings():
    with pytest.raises(ValueError, match="alpha"):
        EdgeBoxes(alpha=1.5)


def test_the_model_is_kept_with_the_detector(tmp_path: Path) -> None:
    """The key has its digest, not only its path."""
    model = tmp_path / "there" / "model.yml.gz"
    model.parent.mkdir()
    model.write_bytes(b"a model")
    proposer = EdgeBoxes(model=str(model))
    before = proposer.inputs()
    assert list(before) == ["edge_model"]
    proposer.keep(tmp_path / "classifier")
    kept = proposer.kept_in(tmp_path / "classifier")
    assert kept == EdgeBoxes(model=str(tmp_path / "classifier/proposer/model.yml.gz"))
    assert (kept.inputs(), EdgeBoxes().inputs()) == (before, {})
    model.write_bytes(b"another model")
    assert proposer.inputs() != before
    assert proposer.kept_in(tmp_path / "nowhere") == proposer
