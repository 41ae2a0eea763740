"""Training images in other forms: objects cut and moved by hand, and found again by their colours in every view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.network.box_views import BoxViews, cut, moved
from detpipe.network.scaled_image import Scaling
from detpipe.structures import GroundTruth, Image
from detpipe.tiles import TilesConfig

NOTHING = GroundTruth.from_boxes([], [])
VIEWS = BoxViews(scales=(60, 90, 120), max_side=200, crop_share=0.7, crop_area=0.2)


def flagged(truth: GroundTruth, *, difficult: list[int] = [], crowd: list[int] = []) -> GroundTruth:  # noqa: B006
    places = np.arange(len(truth))
    return replace(truth, difficult=np.isin(places, difficult), crowd=np.isin(places, crowd))


def test_cut_by_hand() -> None:
    """A window of 20 x 10 at (10, 20)."""
    truth = GroundTruth.from_boxes(
        [
            [12, 22, 18, 28],  # whole
            [5, 20, 15, 30],  # half of it is seen
            [4, 20, 15, 30],  # 5 of 11
            [0, 20, 10, 30],  # touches the window
            [40, 40, 50, 50],  # elsewhere
            [0, 0, 100, 100],  # a crowd, hardly of which is seen
            [12, 22, 18, 28],  # difficult before
        ],
        [1, 2, 3, 4, 5, 6, 7],
    )
    seen = cut(flagged(truth, crowd=[5], difficult=[6]), (10, 20, 30, 30))
    assert seen.boxes.tolist() == [[2, 2, 8, 8], [0, 0, 5, 10], [0, 0, 5, 10], [0, 0, 20, 10], [2, 2, 8, 8]]
    assert seen.labels.tolist() == [1, 2, 3, 6, 7]
    assert seen.difficult.tolist() == [False, False, True, False, True]
    assert seen.crowd.tolist() == [False, False, False, True, False]
    np.testing.assert_allclose(seen.areas, [36, 50, 50, 200, 36], rtol=1e-6)


def test_the_area_of_a_mask_is_cut_by_the_box_s_share() -> None:
    truth = replace(GroundTruth.from_boxes([[0, 0, 10, 10]], [1]), areas=np.array([60], dtype=np.float32))
    assert cut(truth, (0, 0, 10, 5)).areas.tolist() == [30]


def test_cut_of_nothing_and_of_no_area() -> None:
    assert len(cut(NOTHING, (0, 0, 5, 5))) == 0
    assert len(cut(GroundTruth.from_boxes([[2, 2, 2, 4]], [1]), (0, 0, 5, 5))) == 0


def test_moved_by_hand() -> None:
    """100 high and 200 wide, brought to 50 x 400: half as high, twice as wide."""
    truth = flagged(GroundTruth.from_boxes([[10, 20, 30, 60], [0, 0, 200, 100]], [1, 2]), difficult=[0], crowd=[1])
    plain = moved(truth, Scaling((100, 200), (50, 400)))
    assert plain.boxes.tolist() == [[20, 10, 60, 30], [0, 0, 400, 50]]
    mirrored = moved(truth, Scaling((100, 200), (50, 400), mirrored=True))
    assert mirrored.boxes.tolist() == [[340, 10, 380, 30], [0, 0, 400, 50]]
    for one in (plain, mirrored):
        assert one.labels.tolist() == [1, 2]
        assert one.difficult.tolist() == [True, False]
        assert one.crowd.tolist() == [False, True]
        assert one.areas.tolist() == [800, 20000]
    assert len(moved(NOTHING, Scaling((100, 200), (50, 400)))) == 0


COLOURS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230]])
"""Of the labels 1, 2, 3."""


def picture() -> tuple[Image, GroundTruth]:
    """Three rectangles of the three colours on grey, 120 x 160."""
    boxes = [[5, 8, 45, 50], [70, 20, 150, 60], [40, 70, 75, 115]]
    image = np.full((120, 160, 3), 120, dtype=np.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes, COLOURS, strict=True):
        image[y1:y2, x1:x2] = colour
    return image, GroundTruth.from_boxes(boxes, [1, 2, 3])


def found(pixels: Image, label: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The rows and columns of a view that have the colour of a label."""
    rows, columns = np.nonzero((np.abs(pixels - COLOURS[label - 1]) < 40).all(axis=2))
    return rows, columns


@given(st.integers(0, 1 << 30), st.booleans(), st.sampled_from([0.02, 0.2, 1.0]))
def test_objects_are_where_their_colours_are(seed: int, square: bool, crop_area: float) -> None:
    image, truth = picture()
    views = replace(VIEWS, square=square, crop_area=crop_area)
    pixels, seen = views.draw(image, truth, np.random.default_rng(seed))
    height, width = pixels.shape[:2]
    assert (height, width) == (120, 120) if square else min(height, width) <= 120
    assert max(height, width) <= 200
    assert (seen.boxes >= -1e-4).all()  # edges are float32 products and differences
    assert (seen.boxes[:, 2:] > seen.boxes[:, :2]).all()
    assert (seen.boxes <= np.array([width, height, width, height]) + 1e-4).all()
    for box, label in zip(seen.boxes, seen.labels, strict=True):
        if (box[2:] - box[:2]).min() < 6:  # a line, which mixes with its ground where it is made smaller
            continue
        x, y = ((box[:2] + box[2:]) / 2).astype(int)
        assert np.abs(pixels[y, x] - COLOURS[label - 1]).max() < 40
        rows, columns = found(pixels, int(label))
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # Enlarged up to 30 times, an edge of the colour is as wide as an old pixel.
        np.testing.assert_allclose(box, edges, atol=1.5 * max(1, width / 30))
    for label in {1, 2, 3} - set(seen.labels.tolist()):
        assert not len(found(pixels, label)[0])


def test_what_is_cut_is_difficult_and_what_isn_t_is_not() -> None:
    """Over many views each kind occurs; areas say how much of an object is seen."""
    image, truth = picture()
    views = replace(VIEWS, crop_share=1, crop_area=0.1, flip=False, scales=(120,))
    kept = cut_away = gone = 0
    for seed in range(60):
        _, seen = views.draw(image, truth, np.random.default_rng(seed))
        kept += int((~seen.difficult).sum())
        cut_away += int(seen.difficult.sum())
        gone += 3 - len(seen)
        assert (~seen.difficult).any()  # a part shows an object
        np.testing.assert_allclose(seen.areas, (seen.boxes[:, 2:] - seen.boxes[:, :2]).prod(axis=1), rtol=1e-3)
    assert min(kept, cut_away, gone) > 10


def test_where_no_part_shows_an_object_the_whole_is_shown() -> None:
    image, truth = picture()
    views = replace(VIEWS, crop_share=1, crop_area=0.1, flip=False)
    for seed in range(5):
        pixels, seen = views.draw(image, flagged(truth, difficult=[0, 1, 2]), np.random.default_rng(seed))
        assert pixels.shape[1] / pixels.shape[0] == pytest.approx(160 / 120, abs=0.02)
        assert seen.labels.tolist() == [1, 2, 3]


@pytest.mark.parametrize("square", [False, True])
def test_images_without_objects(square: bool) -> None:
    views = replace(VIEWS, square=square, crop_share=1)
    shapes = set()
    for seed in range(10):
        pixels, seen = views.draw(picture()[0], NOTHING, np.random.default_rng(seed))
        assert len(seen) == 0
        shapes.add(pixels.shape)
    assert shapes == {(120, 120, 3)} if square else len(shapes) > 3  # they are shown in parts, too


def test_an_image_of_one_pixel() -> None:
    image = np.zeros((1, 1, 3), dtype=np.uint8)
    pixels, seen = replace(VIEWS, crop_share=1).draw(image, NOTHING, np.random.default_rng(0))
    assert pixels.shape[2] == 3
    assert len(seen) == 0


def test_plain_is_the_whole_at_the_last_scale() -> None:
    image, truth = picture()
    pixels, seen = replace(VIEWS, colour=0.5, scales=(90, 60)).plain(image, truth)
    assert pixels.shape == (60, 80, 3)
    np.testing.assert_allclose(seen.boxes, truth.boxes / 2)
    pixels, seen = replace(VIEWS, square=True, scales=(90, 60)).plain(image, truth)
    assert pixels.shape == (60, 60, 3)
    np.testing.assert_allclose(seen.boxes, truth.boxes * np.array([60 / 160, 0.5] * 2), rtol=1e-6)


def test_a_view_is_its_generator_s() -> None:
    image, truth = picture()
    views = replace(VIEWS, colour=0.3)
    first, again, other = (views.draw(image, truth, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1].boxes, again[1].boxes)
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


def test_colour_changes_pixels_and_no_boxes() -> None:
    image, truth = picture()
    plain = replace(VIEWS, crop_share=0, scales=(120,), flip=False)
    pixels, seen = plain.draw(image, truth, np.random.default_rng(1))
    np.testing.assert_array_equal(pixels, image)
    jittered, same = replace(plain, colour=0.4).draw(image, truth, np.random.default_rng(1))
    np.testing.assert_array_equal(seen.boxes, same.boxes)
    assert not np.array_equal(pixels, jittered)


TILED = BoxViews(scales=(40,), max_side=400, flip=False, tiles=TilesConfig(size=40, overlap=10, whole=False))


def test_a_drawn_tile_shows_its_part_of_the_image_and_its_objects() -> None:
    """The image's red channel is x, the green one y, so a view of the tile's own size tells where it is."""
    y, x = np.mgrid[:90, :120]
    image = np.stack([x, y, 0 * x], axis=2).astype(np.uint8)
    truth = GroundTruth.from_boxes([[20, 30, 30, 36], [100, 70, 118, 88]], [1, 2])
    generator = np.random.default_rng(0)
    shown = set()
    for _ in range(50):
        pixels, seen = TILED.draw(image, truth, generator)
        left, top = int(pixels[0, 0, 0]), int(pixels[0, 0, 1])
        np.testing.assert_array_equal(pixels, image[top : top + 40, left : left + 40])
        expected = cut(truth, (left, top, left + 40, top + 40))
        np.testing.assert_array_equal(seen.boxes, expected.boxes)
        np.testing.assert_array_equal(seen.difficult, expected.difficult)
        shown |= set(seen.labels[~seen.difficult].tolist())
    assert shown == {1, 2}


def test_validation_shows_the_tile_with_most_objects() -> None:
    image = np.zeros((90, 120, 3), dtype=np.uint8)
    truth = GroundTruth.from_boxes([[1, 1, 5, 5], [100, 70, 110, 80], [105, 70, 115, 80]], [1, 2, 3])
    pixels, seen = TILED.plain(image, truth)
    assert pixels.shape == (40, 40, 3)
    assert seen.labels.tolist() == [2, 3]
    assert seen.boxes.tolist() == [[20, 20, 30, 30], [25, 20, 35, 30]]


def test_without_tiles_no_random_number_is_drawn_for_them() -> None:
    """So trainings without tiles have the bytes that they had before there were tiles."""
    image = np.zeros((90, 120, 3), dtype=np.uint8)
    drawn, other = np.random.default_rng(0), np.random.default_rng(0)
    BoxViews(scales=(40,), max_side=400, flip=False).draw(image, NOTHING, drawn)
    other.random()  # whether to crop
    other.integers(1)  # the scale
    assert drawn.bit_generator.state == other.bit_generator.state
