"""The part of an image around an error."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.report.error_crop import SIDE, Frame, error_crop

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
