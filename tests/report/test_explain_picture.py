"""The picture of an explanation: its boxes are in it, and its legend has a line for each."""

from __future__ import annotations

import numpy as np

from detpipe.diagnosis.explanation import Explanation, Frame, Role
from detpipe.report.explain_picture import COLOURS, MOST, ROW, SIDE, explanation_picture, panel

IMAGE = np.full((120, 160, 3), 200, dtype=np.uint8)
STORY = Explanation(
    title="object 1, coin: missed",
    lines=[],
    frames=[
        Frame(Role.object, (40, 40, 60, 60), "object 1: coin"),
        Frame(Role.moved, (35, 40, 57, 60), "after box regression: coin 0.99"),
        Frame(Role.remover, (26, 40, 46, 60), "detection 0 (coin 1.00)"),
        Frame(Role.proposal, (36, 38, 58, 62), "best proposal: rank 3"),
    ],
)


def share(picture: np.ndarray, role: Role) -> float:
    """The share of pixels in the colour of a role."""
    return float((np.abs(picture.astype(int) - np.array(COLOURS[role])).max(axis=-1) <= 2).mean())


def test_every_box_and_its_line_is_drawn() -> None:
    picture = panel(IMAGE, STORY)
    assert picture.shape[1] == SIDE
    legend, drawn = picture[-4 * ROW :], picture[ROW : -4 * ROW]
    for row, frame in enumerate(STORY.frames):
        assert share(drawn, frame.role) > 0.001
        line = legend[row * ROW : (row + 1) * ROW]
        assert share(line, frame.role) > 0.005
        assert (line.min(axis=-1) > 180).sum() > 50  # light letters
        assert all(share(line, other.role) == 0 for other in STORY.frames if other is not frame)


def test_a_box_beyond_the_image_and_an_empty_one() -> None:
    for box in (
        (-30.0, -30.0, 10.0, 10.0),
        (150.0, 110.0, 400.0, 400.0),
        (20.0, 20.0, 20.0, 20.0),
        (300.0, 300.0, 310.0, 310.0),
    ):
        picture = panel(IMAGE, Explanation(title="t", lines=[], frames=[Frame(Role.object, box, "o")]))
        assert picture.shape[1] == SIDE
        assert picture.shape[0] <= SIDE + 2 * ROW


def test_panels_are_beside_each_other() -> None:
    one = explanation_picture(IMAGE, [STORY])
    two = explanation_picture(IMAGE, [STORY] * 2)
    many = explanation_picture(IMAGE, [STORY] * (MOST + 5))
    assert two.shape[1] > 1.9 * one.shape[1]
    assert two.shape[0] == one.shape[0]
    assert many.shape == explanation_picture(IMAGE, [STORY] * MOST).shape


def test_nothing_to_explain() -> None:
    np.testing.assert_array_equal(explanation_picture(IMAGE, []), IMAGE)
    np.testing.assert_array_equal(explanation_picture(IMAGE, [Explanation(title="t", lines=[])]), IMAGE)
