"""supervision's object: its constructor's arguments by a stand-in, and the library itself where it is."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from detpipe import to_supervision
from detpipe.structures import Detections

FOUND = Detections(
    np.array([[1, 2, 11, 22], [5, 5, 9, 6]], dtype=np.float32),
    np.array([0.75, 0.25], dtype=np.float32),
    np.array([2, 1], dtype=np.int64),
)
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@pytest.fixture(params=["stand-in", "library"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "library":
        pytest.importorskip("supervision")
    else:
        monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))


@pytest.mark.usefixtures("_library")
def test_classes_count_from_zero_and_have_names() -> None:
    one = to_supervision(FOUND, ("disc", "square"))
    np.testing.assert_array_equal(one.xyxy, FOUND.boxes)
    np.testing.assert_array_equal(one.confidence, FOUND.scores)
    assert one.class_id is not None
    assert one.class_id.tolist() == [1, 0]
    assert one.data["class_name"].tolist() == ["square", "disc"]


@pytest.mark.usefixtures("_library")
def test_nothing_found() -> None:
    one = to_supervision(NOTHING, ("disc", "square"))
    assert (one.xyxy.shape, one.data["class_name"].shape) == ((0, 4), (0,))


@pytest.mark.usefixtures("_library")
def test_a_label_without_a_class() -> None:
    with pytest.raises(ValueError, match=r"expected labels 1\.\.1, got 2"):
        to_supervision(FOUND, ("disc",))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="supervision is not installed; pip install supervision"):
        to_supervision(NOTHING, ())
