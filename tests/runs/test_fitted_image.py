"""An image for a graph of a fixed size, and what the graph finds as detections of the image."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.runs.fitted_image import FittedImage
from detpipe.structures import Detections


@pytest.mark.parametrize("shape", [(40, 60), (10, 15), (20, 30), (20, 3000)])
def test_boxes_go_there_and_back(shape: tuple[int, int]) -> None:
    """The whole image, and a part of it."""
    height, width = shape
    fitted = FittedImage(np.zeros((*shape, 3), np.uint8), (20, 40), 114)
    boxes = np.array([[0, 0, width, height], [1, 2, width - 1, height / 2]], np.float32)
    pixels, moved = fitted.given(boxes)
    assert pixels.shape == (20, 40, 3)
    assert (moved[:, 2:] <= (40.01, 20.01)).all()
    found = fitted.found(Detections(moved, np.array([0.9, 0.8], np.float32), np.array([1, 2])))
    np.testing.assert_allclose(found.boxes, boxes, rtol=1e-5)
    assert found.labels.tolist() == [1, 2]


def test_what_is_beside_the_image_is_no_detection() -> None:
    """The image takes 30 of 40 columns."""
    fitted = FittedImage(np.full((20, 30, 3), 51, np.uint8), (20, 40), 114)
    pixels, none = fitted.given(np.zeros((0, 4), np.float32))
    assert none.shape == (0, 4)
    assert (set(pixels[:, :30].ravel()), set(pixels[:, 30:].ravel())) == ({51}, {114})
    boxes = np.array([[31, 0, 40, 9], [20, 0, 40, 9]], np.float32)
    found = fitted.found(Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([1, 1])))
    assert (found.boxes.tolist(), found.scores.tolist()) == ([[20, 0, 30, 9]], [np.float32(0.8)])
    assert len(fitted.found(found[:0])) == 0
