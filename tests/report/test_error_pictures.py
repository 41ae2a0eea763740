"""Pictures of errors: the part of the image around each, and which errors are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.diagnosis.causes import Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.report.error_pictures import SIDE, Frame, draw_errors, error_crop, worst_false, worst_misses
from tests.diagnosis.scenes import BOX, CAT, found
from tests.report.test_blame_page import dataset

BLACK = np.zeros((100, 200, 3), np.uint8)
RED, GREEN = (255, 0, 0), (0, 255, 0)


def test_the_box_is_in_the_middle_and_framed() -> None:
    """The box of 20 x 20 has a margin of 16 pixels: 52 x 52 pixels become 240 x 240."""
    drawn = error_crop(BLACK, (90, 40, 110, 60), [Frame((90, 40, 110, 60), RED)])
    assert drawn.shape == (SIDE, SIDE, 3)
    rows, columns = np.nonzero((drawn == RED).all(axis=2))
    assert (columns.min(), rows.min()) == (round(16 * SIDE / 52), round(16 * SIDE / 52))
    assert columns.max() == round(36 * SIDE / 52) - 1


def test_the_first_frame_is_on_top() -> None:
    box = (90, 40, 110, 60)
    drawn = error_crop(BLACK, box, [Frame(box, GREEN), Frame(box, RED)])
    assert (drawn == GREEN).all(axis=2).any()
    assert not (drawn == RED).all(axis=2).any()


@pytest.mark.parametrize("box", [(-30, -30, -10, -10), (500, 500, 600, 600), (0, 0, 200, 100), (5, 5, 5, 5)])
def test_boxes_beyond_the_edge_show_the_nearest_pixels(box: tuple[int, int, int, int]) -> None:
    assert max(error_crop(BLACK, box, []).shape[:2]) == SIDE


def miss(image: str, index: int = 0) -> Miss:
    return Miss(image=image, object=index, label="cat", box=BOX, cause=Cause.missed)


def wrong(image: str, detection: int, score: float) -> FalseDetection:
    return FalseDetection(
        image=image, detection=detection, label="cat", score=score, box=BOX, type=FalseType.background
    )


def test_the_worst_come_first_and_no_image_fills_the_list(tmp_path: Path) -> None:
    errors = [*(wrong("a", i, 0.9 - i / 100) for i in range(5)), wrong("b", 0, 0.5)]
    assert [(one.image, one.detection) for one in worst_false(errors, 3)] == [("a", 0), ("a", 1), ("b", 0)]
    assert worst_false([], 3) == []
    images = dataset(tmp_path, ["a", "b"])
    assert [one.image for one in worst_misses([miss("b"), miss("a")], images, 1)] == ["b"]


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    images = dataset(tmp_path, ["a", "b"])
    (tmp_path / "1.png").unlink()
    shown = [miss("a"), miss("b"), wrong("a", 0, 0.9)]
    drawn = draw_errors(images, {"a": found((0.9, BOX, CAT)), "b": found()}, shown, threshold=0.5)
    assert drawn.unreadable == ["1.png"]
    assert [one.below for one in drawn.of(shown)] == ["0.png, object 0", "0.png, detection 0"]
