"""The objects of training images, in tiles and without, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from detpipe.runs.annotated_images import objects_of
from detpipe.structures import GroundTruth, ImageRecord
from detpipe.tiles import TilesConfig

RECORD = ImageRecord("one", Path("one.jpg"), (100, 180))


def test_objects_without_tiles_are_those_of_the_image() -> None:
    truth = replace(
        GroundTruth.from_boxes([[0, 0, 10, 20], [5, 5, 9, 9], [3, 3, 3, 8]], [1, 1, 2]),
        difficult=np.array([False, True, False]),
    )
    boxes, sizes = objects_of([(RECORD, truth, None)], TilesConfig())
    assert boxes.tolist() == [[0, 0, 10, 20]]
    assert sizes.tolist() == [[100, 180]]


def test_each_tile_is_an_image_and_so_is_the_whole_one() -> None:
    """Tiles from 0 and 80: the first object is in both, of the second one less than half is in the first tile."""
    truth = GroundTruth.from_boxes([[82, 0, 98, 20], [90, 40, 130, 60]], [1, 2])
    boxes, sizes = objects_of([(RECORD, truth, None)], TilesConfig(size=100, overlap=20))
    expected = [[82, 0, 98, 20], [2, 0, 18, 20], [10, 40, 50, 60], [82, 0, 98, 20], [90, 40, 130, 60]]
    assert boxes.tolist() == expected
    assert sizes.tolist() == [[100, 100]] * 3 + [[100, 180]] * 2


def test_no_images_have_no_objects() -> None:
    boxes, sizes = objects_of([], TilesConfig(size=100))
    assert boxes.shape == (0, 4)
    assert sizes.shape == (0, 2)
