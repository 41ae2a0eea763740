"""The page of pictures: whose box is best, which colour stands where, what it counts, its links, names from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.report.drawing import GREEN, RED, Colour
from detpipe.report.proposal_page import BLUE, ShownImage, best_boxes, draw_proposals, write_proposal_page
from detpipe.structures import GroundTruth, Image
from tests.metrics.test_proposal_recall import proposals
from tests.report.run.test_page import EVIL, Reader, read

WIDE = np.full((20, 600, 3), 128, np.uint8)
GREY = np.full((200, 300, 3), 128, np.uint8)
FAR = [150, 150, 190, 190]


def page_of(folder: Path, shown: list[tuple[str, ShownImage]]) -> Reader:
    write_proposal_page(folder / "index.html", "my data", shown, top=20, budget=1000, min_iou=0.7)
    return read((folder / "index.html").read_text("utf-8"))


def test_it_counts_and_links(tmp_path: Path):
    boxes = proposals([0, 0, 10, 7], [0, 0, 10, 6])
    best = best_boxes(GroundTruth.from_boxes([[0, 0, 10, 10], [50, 0, 60, 10]], [1, 1]), boxes)
    shown = [
        ("0001_a b.jpg", ShownImage.of("a b.jpg", WIDE, 2, best, 0.7)),
        ("0002_c.jpg", ShownImage.of("c.jpg", WIDE, 1500, None, 0.7)),
    ]
    page = page_of(tmp_path, shown)
    assert " 2 boxes, 1 of 2 objects found" in page.words
    assert " 1,500 boxes" in page.words
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"][-2:] == ["0001_a%20b.jpg", "0002_c.jpg"]
    (image, *_) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["width"] == "480"
    assert str(image["src"]).startswith("data:image/jpeg;base64,")


def test_names_from_outside(tmp_path: Path):
    names = [EVIL.replace("/", ""), "\udcff.jpg", "浣熊.jpg"]
    page = page_of(tmp_path, [(name, ShownImage.of(name, WIDE, 0, None, 0.7)) for name in names])
    assert not [tag for tag, attributes in page.tags if tag == "script" or "onerror" in attributes]
    assert "%FF.jpg" in [attributes["href"] for tag, attributes in page.tags if tag == "a"]


def test_no_images(tmp_path: Path):
    assert "There are no images to show." in page_of(tmp_path, []).words


def has(picture: Image, colour: Colour) -> bool:
    return bool((picture == colour).all(axis=2).any())


def test_the_best_box_of_each_object():
    truth = GroundTruth.from_boxes([[0, 0, 10, 10], [20, 0, 30, 10], [90, 90, 99, 99], [0, 0, 10, 10]], [1, 2, 1, 1])
    truth.difficult[3] = True
    best = best_boxes(truth, proposals([0, 0, 10, 5], [0, 0, 10, 8], [20, 0, 30, 7], [20, 0, 30, 7]))
    assert best.index.tolist() == [1, 2, -1]
    assert best.overlap == pytest.approx([0.8, 0.7, 0])
    assert best.labels.tolist() == [1, 2, 1]


def test_of_nothing():
    truth = GroundTruth.from_boxes([[0, 0, 10, 10]], [1])
    assert best_boxes(truth, proposals()).index.tolist() == [-1]
    assert best_boxes(truth, proposals()).overlap.tolist() == [0]
    nothing = best_boxes(GroundTruth.from_boxes([], []), proposals([0, 0, 1, 1]))
    assert (len(nothing.objects), nothing.index.shape) == (0, (0,))
    drawn = draw_proposals(GREY, proposals(), nothing, (), top=5, min_iou=0.5)
    assert np.array_equal(drawn, GREY)
    drawn = draw_proposals(GREY, proposals(), best_boxes(truth, proposals()), ("cat",), top=5, min_iou=0.5)
    assert has(drawn, RED)


def test_found_is_green_and_missed_is_red():
    boxes = proposals([10, 10, 90, 90])
    for object_, found in (([10, 10, 90, 80], True), ([10, 10, 90, 40], False), (FAR, False)):
        best = best_boxes(GroundTruth.from_boxes([object_], [1]), boxes)
        drawn = draw_proposals(GREY, boxes, best, ("cat",), top=0, min_iou=0.5)
        assert (has(drawn, GREEN), has(drawn, RED)) == (found, not found)


def test_the_first_boxes_are_blue_with_and_without_annotations():
    boxes = proposals([10, 10, 90, 90], [100, 100, 140, 140])
    nothing = best_boxes(GroundTruth.from_boxes([], []), boxes)
    for best in (None, nothing):
        one = draw_proposals(GREY, boxes, best, (), top=1, min_iou=0.5)
        assert has(one[:95, :95], BLUE)
        assert not has(one[95:, 95:], BLUE)
        assert has(draw_proposals(GREY, boxes, best, (), top=9, min_iou=0.5)[95:, 95:], BLUE)
        assert np.array_equal(draw_proposals(GREY, boxes, best, (), top=0, min_iou=0.5), GREY)
