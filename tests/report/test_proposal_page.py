"""The page of pictures: what it counts, its links, and names from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detpipe.report.proposal_page import ShownImage, write_proposal_page
from detpipe.report.proposal_pictures import best_boxes
from detpipe.structures import GroundTruth
from tests.metrics.test_proposal_recall import proposals
from tests.report.run.test_page import EVIL, Reader, read

GREY = np.full((20, 600, 3), 128, np.uint8)


def page_of(folder: Path, shown: list[tuple[str, ShownImage]]) -> Reader:
    write_proposal_page(folder / "index.html", "my data", shown, top=20, budget=1000, min_iou=0.7)
    return read((folder / "index.html").read_text("utf-8"))


def test_it_counts_and_links(tmp_path: Path):
    boxes = proposals([0, 0, 10, 7], [0, 0, 10, 6])
    best = best_boxes(GroundTruth.from_boxes([[0, 0, 10, 10], [50, 0, 60, 10]], [1, 1]), boxes)
    shown = [
        ("0001_a b.jpg", ShownImage.of("a b.jpg", GREY, 2, best, 0.7)),
        ("0002_c.jpg", ShownImage.of("c.jpg", GREY, 1500, None, 0.7)),
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
    page = page_of(tmp_path, [(name, ShownImage.of(name, GREY, 0, None, 0.7)) for name in names])
    assert not [tag for tag, attributes in page.tags if tag == "script" or "onerror" in attributes]
    assert "%FF.jpg" in [attributes["href"] for tag, attributes in page.tags if tag == "a"]


def test_no_images(tmp_path: Path):
    assert "There are no images to show." in page_of(tmp_path, []).words
