"""Objects pasted beside others: where they come to stand, what is covered by hand, and found again by their colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe import boxes as geometry
from detpipe.network import copy_paste
from detpipe.network.copy_paste import behind, paste_beside, usable
from detpipe.structures import GroundTruth, Image

NOTHING = GroundTruth.from_boxes([], [])
GREY, RED, BLUE = (90, 90, 90), (250, 0, 0), (0, 0, 250)


def painted(size: tuple[int, int], boxes: list[list[int]], colour: tuple[int, int, int]) -> tuple[Image, GroundTruth]:
    """A grey image (height, width) with its objects in one colour, labelled 1, 2, ..."""
    image = np.full((*size, 3), GREY, dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = colour
    return image, GroundTruth.from_boxes(boxes, np.arange(1, len(boxes) + 1))


def extent(image: Image) -> list[int]:
    """The box of what is blue."""
    rows, columns = np.nonzero(image[..., 2].astype(int) - image[..., 0] > 125)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def test_behind_by_hand() -> None:
    """A cover from (10, 10) to (30, 30)."""
    truth = GroundTruth.from_boxes(
        [
            [20, 12, 40, 28],  # its left half is covered from top to bottom
            [0, 10, 16, 30],  # 6 of 16 at its right, edges in line
            [12, 0, 24, 20],  # its lower half
            [12, 20, 24, 40],  # its upper half
            [20, 5, 40, 28],  # not covered to the top: as large as before
            [12, 12, 20, 20],  # all of it
            [0, 12, 50, 20],  # its middle: both ends are seen
            [50, 50, 60, 60],  # elsewhere
        ],
        [1, 2, 3, 4, 5, 6, 7, 8],
    )
    seen = behind(truth, np.array([10, 10, 30, 30], dtype=np.float32))
    assert seen.boxes[[0, 1, 2, 3, 4, 6, 7]].tolist() == [
        [30, 12, 40, 28],
        [0, 10, 10, 30],
        [12, 0, 24, 10],
        [12, 30, 24, 40],
        [20, 5, 40, 28],
        [0, 12, 50, 20],
        [50, 50, 60, 60],
    ]
    assert geometry.area(seen.boxes[[5]]).tolist() == [0]
    np.testing.assert_allclose(seen.areas, [160, 200, 120, 120, 280, 0, 240, 100], rtol=1e-6)
    assert seen.labels.tolist() == truth.labels.tolist()
    assert len(behind(NOTHING, np.array([10, 10, 30, 30], dtype=np.float32))) == 0


def test_the_area_of_a_mask_is_covered_by_the_box_s_share() -> None:
    truth = replace(GroundTruth.from_boxes([[0, 0, 10, 10]], [1]), areas=np.array([60], dtype=np.float32))
    assert behind(truth, np.array([5, 0, 20, 20], dtype=np.float32)).areas.tolist() == [30]


@given(st.integers(0, 10_000))
def test_what_is_pasted_is_where_its_box_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    image, truth = painted((150, 200), [[70, 60, 110, 90]], RED)
    donor, donated = painted((90, 120), [[30, 20, 30 + int(generator.integers(20, 80)), 60]], BLUE)
    before = image.copy()
    pasted, seen = paste_beside(image, truth, donor, donated, generator)
    np.testing.assert_array_equal(image, before)
    assert len(seen) == 2
    assert seen.labels.tolist() == [1, 1]
    assert not seen.difficult.any()
    assert not seen.crowd.any()
    np.testing.assert_allclose(extent(pasted), seen.boxes[1], atol=1)
    x1, y1, x2, y2 = seen.boxes[1]
    margins = np.ceil(2 * copy_paste.MARGIN * np.array([x2 - x1, y2 - y1]) + 1)  # twice: it may reach out of the image
    untouched = np.ones(image.shape[:2], dtype=bool)
    left, top = np.maximum(seen.boxes[1, :2] - margins, 0).astype(int)
    right, bottom = np.ceil(seen.boxes[1, 2:] + margins).astype(int)
    untouched[top:bottom, left:right] = False
    np.testing.assert_array_equal(pasted[untouched], image[untouched])


@given(st.integers(0, 10_000))
def test_all_stay_in_sight(seed: int) -> None:
    """Also where objects are large, the image is full of them, and both are of any size and place."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(30, 120, 2).tolist()
    corners = generator.uniform(0, [width, height, width, height], (6, 4))
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    truth = GroundTruth.from_boxes(np.concatenate([low, high], axis=1), np.arange(1, 7))
    image = np.full((height, width, 3), GREY, dtype=np.uint8)
    donor, donated = painted((50, 50), [[5, 5, 5 + int(generator.integers(8, 45)), 35]], BLUE)
    pasted, seen = paste_beside(image, truth, donor, donated, generator)
    assert pasted.shape == image.shape
    if len(seen) == len(truth):
        np.testing.assert_array_equal(pasted, image)
        return
    assert len(seen) == len(truth) + 1
    new = seen.boxes[-1:]
    assert (geometry.clip(new, image.shape[:2]) == new).all()
    assert (new[:, 2:] - new[:, :2] >= copy_paste.SMALLEST).all()
    hidden = geometry.intersection(truth.boxes, new)[:, 0]
    assert (hidden <= 0.25 * geometry.area(truth.boxes) + 1e-3).all()
    assert (geometry.overlap_of_first(seen.boxes[:-1], truth.boxes).diagonal() > 0.999).all()


def test_it_stands_beside_an_object_of_about_its_size() -> None:
    """Twice as far away as half their sides at most, along one axis; each side of the object is taken."""
    image, truth = painted((600, 600), [[280, 280, 320, 320]], RED)
    donor, donated = painted((90, 120), [[30, 20, 70, 60]], BLUE)
    places = set()
    for seed in range(40):
        _, seen = paste_beside(image, truth, donor, donated, np.random.default_rng(seed))
        side = seen.boxes[1, 2:] - seen.boxes[1, :2]
        assert (side >= 40 / 1.5 - 1).all()
        assert (side <= 40 * 1.5 + 1).all()
        away = (seen.boxes[1, :2] + seen.boxes[1, 2:]) / 2 - 300
        along = int(np.abs(away).argmax())
        apart = 2 * np.abs(away) / (side + 40)
        assert 0.7 - 0.05 <= apart[along] <= 1.05
        assert abs(away[1 - along]) <= 0.25 * 40 + 1
        places.add((along, bool(away[along] > 0)))
    assert len(places) == 4


def test_half_are_mirrored() -> None:
    image, truth = painted((200, 200), [[80, 80, 120, 120]], RED)
    donor, donated = painted((60, 60), [[10, 10, 50, 50]], GREY)
    donor[10:50, 30:50] = BLUE  # the right half
    halves = []
    for seed in range(40):
        pasted, seen = paste_beside(image, truth, donor, donated, np.random.default_rng(seed))
        x1, _, x2, _ = seen.boxes[1]
        blue = extent(pasted)
        halves.append(blue[0] + blue[2] < x1 + x2)
    assert 10 < sum(halves) < 30


def test_the_same_generator_gives_the_same() -> None:
    image, truth = painted((150, 200), [[70, 60, 110, 90]], RED)
    donor, donated = painted((90, 120), [[30, 20, 70, 60], [5, 5, 25, 25]], BLUE)
    one, two = (paste_beside(image, truth, donor, donated, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1].boxes, two[1].boxes)


def test_nothing_to_paste_or_beside_what() -> None:
    image, truth = painted((150, 200), [[70, 60, 110, 90]], RED)
    donor, donated = painted((90, 120), [[30, 20, 70, 60]], BLUE)
    difficult = replace(donated, difficult=np.array([True]))
    crowd = replace(truth, crowd=np.array([True]))
    small = GroundTruth.from_boxes([[10, 10, 17, 60]], [1])
    for mine, theirs in ((NOTHING, donated), (truth, NOTHING), (truth, difficult), (crowd, donated), (truth, small)):
        pasted, seen = paste_beside(image, mine, donor, theirs, np.random.default_rng(0))
        assert pasted is image
        assert seen is mine


def test_no_place() -> None:
    """The object fills the image, and its neighbour would be no smaller than two thirds of it."""
    image, truth = painted((20, 20), [[0, 0, 20, 20], [0, 0, 9, 9]], RED)
    truth = replace(truth, difficult=np.array([False, True]))
    donor, donated = painted((90, 120), [[10, 10, 110, 60]], BLUE)
    found = [len(paste_beside(image, truth, donor, donated, np.random.default_rng(seed))[1]) for seed in range(30)]
    assert set(found) <= {2, 3}
    assert 2 in found


def test_objects_that_reach_out_of_their_image() -> None:
    """What is pasted is what can be seen of it."""
    image, truth = painted((200, 200), [[80, 80, 120, 120]], RED)
    donor, _ = painted((60, 60), [[40, 10, 60, 50]], BLUE)
    donated = GroundTruth.from_boxes([[40, 10, 140, 50]], [2])
    for seed in range(10):
        pasted, seen = paste_beside(image, truth, donor, donated, np.random.default_rng(seed))
        np.testing.assert_allclose(extent(pasted), seen.boxes[1], atol=1)
        x1, y1, x2, y2 = seen.boxes[1]
        assert (y2 - y1) / (x2 - x1) == pytest.approx(2, rel=0.1)


def test_usable_of_none() -> None:
    assert usable(NOTHING, np.zeros((5, 5, 3), dtype=np.uint8)).shape == (0,)
