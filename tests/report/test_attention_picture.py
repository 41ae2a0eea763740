"""The picture of attention: a panel for each detection, and stronger lines for larger weights."""

from __future__ import annotations

import numpy as np

from detpipe.report.attention_picture import (
    ROW,
    SIDE,
    Attended,
    DetectionAttention,
    attention_picture,
    panel,
    with_lines,
)

IMAGE = np.full((50, 100, 3), 90, dtype=np.uint8)
FOUND = DetectionAttention(
    name="dog",
    score=0.8,
    box=(10, 10, 30, 30),
    own=0.5,
    regions=(Attended(box=(60, 10, 90, 40), weight=0.4), Attended(box=(-5, 0, 20, 60), weight=0.1)),
)


def test_no_detections_give_the_image() -> None:
    np.testing.assert_array_equal(attention_picture(IMAGE, []), IMAGE)


def test_panels_side_by_side() -> None:
    one, two, three = (attention_picture(IMAGE, [FOUND] * count) for count in (1, 2, 3))
    assert panel(IMAGE, FOUND).shape == (SIDE // 2 + ROW, SIDE, 3)
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] > one.shape[1]
    assert three.shape[1] == two.shape[1]
    assert three.shape[0] > two.shape[0]


def test_larger_weights_give_stronger_lines() -> None:
    start, boxes = np.float32([0, 20, 10, 30]), np.float32([[80, 20, 90, 30]])
    strong, weak = (with_lines(IMAGE, start, boxes, [share]).astype(int) for share in (1.0, 0.2))
    changed = [np.abs(one - IMAGE.astype(int)).sum() for one in (strong, weak)]
    assert changed[0] > 2 * changed[1] > 0


def test_a_detection_that_attended_to_itself_alone() -> None:
    alone = DetectionAttention(name="dog", score=0.8, box=(10, 10, 30, 30), own=1.0, regions=())
    assert panel(IMAGE, alone).shape == (SIDE // 2 + ROW, SIDE, 3)
