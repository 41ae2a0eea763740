"""Boxes on pictures: which pixels change, and that no text breaks it."""

from __future__ import annotations

import io

import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings

from detpipe.report.drawing import (
    class_colour,
    contact_sheet,
    contrast,
    draw_boxes,
    draw_detections,
    draw_ground_truth,
    readable_on,
    to_jpeg,
)
from detpipe.structures import Detections, GroundTruth

GREY = np.full((100, 140, 3), 128, np.uint8)
BOX = np.array([[20, 30, 80, 90]], np.float32)


def test_the_frame_runs_along_the_inside_of_the_box():
    drawn = draw_boxes(GREY, BOX, colours=[(255, 0, 0)])
    red = (drawn == (255, 0, 0)).all(axis=2)
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (20, 30, 79, 89)
    assert not red[40:80, 30:70].any()
    assert (GREY == 128).all()


def test_a_dashed_frame_has_gaps():
    solid = draw_boxes(GREY, BOX, colours=[(255, 0, 0)])
    dashed = draw_boxes(GREY, BOX, colours=[(255, 0, 0)], dashed=True)
    solid_line, dashed_line = ((one[30, 20:80] == (255, 0, 0)).all(axis=1) for one in (solid, dashed))
    assert solid_line.all()
    assert 0 < dashed_line.sum() < 60


def test_the_line_grows_with_the_image():
    def width_of_line(side: int) -> int:
        image = np.zeros((side, side, 3), np.uint8)
        box = np.array([[side / 4, side / 4, side / 2, side / 2]], np.float32)
        row = draw_boxes(image, box, colours=[(255, 0, 0)])[int(side * 3 / 8)]
        return int((row == (255, 0, 0)).all(axis=1).sum()) // 2

    assert width_of_line(1500) > width_of_line(300) >= 1


def test_a_thin_line_is_half_of_the_line():
    image = np.zeros((600, 600, 3), np.uint8)
    box = np.array([[100, 100, 500, 500]], np.float32)
    rows = [draw_boxes(image, box, colours=[(255, 0, 0)], thin=thin)[300] for thin in (False, True)]
    assert [int((row == (255, 0, 0)).all(axis=1).sum()) // 2 for row in rows] == [4, 2]


def test_no_boxes_leave_a_copy():
    drawn = draw_boxes(GREY, np.zeros((0, 4), np.float32))
    assert (drawn == GREY).all()
    assert drawn is not GREY


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [-50, -50, 500, 500], [200, 200, 300, 300], [139.9, 99.9, 140, 100]])
def test_empty_and_outside_boxes_are_no_error(box: list[float]):
    assert draw_boxes(GREY, np.array([box], np.float32), ["cat"]).shape == GREY.shape


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=60), st.integers(1, 200))
def test_any_caption_on_any_size(text: str, side: int):
    image = np.zeros((side, 37, 3), np.uint8)
    drawn = draw_boxes(image, np.array([[1, 1, side / 2 + 1, side / 2 + 1]], np.float32), [text])
    assert drawn.shape == image.shape


def test_a_caption_changes_pixels_above_the_box():
    changed = draw_boxes(GREY, BOX, ["cat"]) != draw_boxes(GREY, BOX)
    assert changed[:30].any()


def test_captions_stay_in_the_image_and_keep_apart():
    boxes = np.array([[20, 30, 80, 90], [22, 32, 80, 90], [0, 0, 140, 100], [130, 60, 139, 90]], np.float32)
    taken: list[tuple[int, int, int, int]] = []
    draw_boxes(GREY, boxes, ["a cat", "a cat", "a long name of a class", "dog"], taken=taken)
    assert len(taken) == 4
    for i, (left, top, right, bottom) in enumerate(taken):
        assert min(left, top) >= 0
        assert right <= 140
        assert bottom <= 100
        assert all(left >= r or right <= x or top >= b or bottom <= y for x, y, r, b in taken[:i])


def test_a_caption_without_a_free_place_is_left_out():
    taken = [(0, 0, 140, 100)]
    assert (draw_boxes(GREY, BOX, ["cat"], taken=taken) == draw_boxes(GREY, BOX)).all()
    assert len(taken) == 1


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_captions_are_readable_on_any_colour(colour: tuple[int, int, int]):
    assert contrast(readable_on(colour), colour) >= 4.5


def test_the_contrast_by_hand():
    assert contrast((255, 255, 255), (0, 0, 0)) == 21
    assert contrast((9, 9, 9), (9, 9, 9)) == 1
    assert round(contrast((255, 255, 255), (118, 118, 118)), 2) == 4.54  # the grey #767676, WCAG's usual example


def test_as_many_captions_and_colours_as_boxes():
    with pytest.raises(ValueError, match=r"expected 1 captions, .* got 2"):
        draw_boxes(GREY, BOX, ["a", "b"])
    with pytest.raises(ValueError, match=r"expected 1 colours, .* got 2"):
        draw_boxes(GREY, BOX, colours=[(0, 0, 0), (0, 0, 0)])


def test_detections_below_the_score_are_not_drawn():
    found = Detections(BOX, np.array([0.4], np.float32), np.array([1], np.int64))
    assert (draw_detections(GREY, found, ["cat"], min_score=0.5) == GREY).all()
    assert (draw_detections(GREY, found, ["cat"], min_score=0.4) != GREY).any()


def test_ground_truth_takes_the_colour_of_its_class():
    drawn = draw_ground_truth(GREY, GroundTruth.from_boxes(BOX, [2]), ["cat", "dog"], names=False)
    assert (drawn[30, 20] == class_colour(2)).all()


def test_the_colours_of_80_classes_differ():
    assert len({class_colour(label) for label in range(1, 81)}) == 80


def test_a_contact_sheet_puts_images_in_rows():
    white, black = np.full((10, 20, 3), 255, np.uint8), np.zeros((40, 10, 3), np.uint8)
    sheet = contact_sheet([white, black, white], columns=2, cell=(30, 40))
    assert sheet.shape == (60, 80, 3)
    assert (sheet[15, 20] == 255).all()  # enlarged to 20 x 40, in the middle of the cell
    assert (sheet[2, 20] == 40).all()
    assert (sheet[15, 60] == 0).all()
    assert (sheet[45, 20] == 255).all()
    assert (sheet[45, 60] == 40).all()
    with pytest.raises(ValueError, match="contact_sheet: expected"):
        contact_sheet([], 2, (10, 10))


def test_a_jpeg_of_an_image():
    blue = np.zeros((8, 16, 3), np.uint8)
    blue[:, :, 2] = 200
    read = np.asarray(PIL.Image.open(io.BytesIO(to_jpeg(blue))))
    assert read.shape == (8, 16, 3)
    assert abs(read.astype(int) - blue).max() <= 3
    with pytest.raises(ValueError, match="expected an image with pixels"):
        to_jpeg(np.zeros((0, 8, 3), np.uint8))


def test_a_jpeg_is_scaled_down_to_the_limit_of_its_sides():
    read = PIL.Image.open(io.BytesIO(to_jpeg(np.zeros((4, 131000, 3), np.uint8))))
    assert read.size == (65500, 2)
