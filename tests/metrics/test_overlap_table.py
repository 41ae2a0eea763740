"""The table of best overlaps: by hand, its order, its parts, and real boxes of selective search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.datasets.image_file import read_header, read_image
from detpipe.metrics.overlap_table import best_overlaps, overlap_table
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.structures import Dataset, GroundTruth, ImageId, ImageRecord, Proposals
from tests.metrics.test_proposal_recall import proposals

TRUTH: dict[ImageId, GroundTruth] = {
    "b": GroundTruth.from_boxes([[0, 0, 10, 10], [20, 0, 30, 10]], [1, 2]),
    "a": GroundTruth.from_boxes([[0, 0, 10, 10]], [1]),
    "missed": GroundTruth.from_boxes([[0, 0, 4, 4]], [3]),
    "empty": GroundTruth.from_boxes([], []),
}
FOUND: dict[ImageId, Proposals] = {
    # IoU with the first: 0.5, then 0.8; with the second 0, then 0, then 0.7.
    "b": proposals([0, 0, 10, 5], [0, 0, 10, 8], [20, 0, 30, 7]),
    "a": proposals([0, 0, 10, 10]),
    "empty": proposals([0, 0, 9, 9], [0, 0, 8, 8]),
}


def test_by_hand_in_the_order_of_the_ids():
    table = overlap_table(TRUTH, FOUND, 3, (1, 2, 3))
    assert table.image_ids == ("a", "b", "empty", "missed")
    assert table.images.tolist() == [0, 1, 1, 3]
    assert table.labels.tolist() == [1, 1, 2, 3]
    assert table.areas.tolist() == [100, 100, 100, 16]
    assert table.proposals.tolist() == [1, 3, 2, 0]
    assert table.best == pytest.approx(np.array([[1, 1, 1], [0.5, 0.8, 0.8], [0, 0, 0.7], [0, 0, 0]]))
    assert table.best.dtype == np.float32


def test_it_does_not_depend_on_the_order_of_the_images():
    table = overlap_table(TRUTH, FOUND, 3, (1, 3))
    other = overlap_table(dict(reversed(TRUTH.items())), iter(reversed(FOUND.items())), 3, (1, 3))
    assert other.image_ids == table.image_ids
    for name in ("best", "images", "labels", "areas", "proposals"):
        assert np.array_equal(getattr(other, name), getattr(table, name))


def test_numbers_come_before_names_among_the_ids():
    nothing = GroundTruth.from_boxes([], [])
    assert overlap_table({"x": nothing, 10: nothing, 9: nothing}, {}, 1, (1,)).image_ids == (9, 10, "x")


def test_rows_and_columns_of_it():
    table = overlap_table(TRUTH, FOUND, 3, (1, 2, 3))
    part = table.where(table.labels == 1).at((3, 1))
    assert part.budgets == (3, 1)
    assert part.best == pytest.approx(np.array([[1, 1], [0.8, 0.5]]))
    assert part.images.tolist() == [0, 1]
    assert part.image_ids == table.image_ids
    with pytest.raises(ValueError, match=r"expected budgets of \[1, 2, 3\], got \[7\]"):
        table.at([1, 7])


def test_difficult_objects_and_crowds_have_no_row():
    truth = GroundTruth.from_boxes([[0, 0, 5, 5], [50, 50, 60, 60], [70, 70, 80, 80]], [1, 1, 2])
    truth.difficult[1] = truth.crowd[2] = True
    assert overlap_table({1: truth}, {1: proposals([0, 0, 5, 5])}, 2, (1,)).best.tolist() == [[1]]


def test_of_nothing():
    for truth in ({}, {1: GroundTruth.from_boxes([], [])}):
        table = overlap_table(truth, {}, 3, (1, 10))
        assert len(table) == 0
        assert table.best.shape == (0, 2)
        assert table.proposals.tolist() == [0] * len(truth)
    none = np.zeros((0, 4), np.float32)
    some = np.array([[0, 0, 1, 1]], np.float32)
    assert best_overlaps(none, some, (1, 2)).shape == (0, 2)
    assert best_overlaps(some, none, (1, 2)).tolist() == [[0, 0]]


def slow_best(box: list[float], others: list[list[float]]) -> float:
    """The largest IoU, one pair at a time, from the definition."""
    best = 0.0
    for other in others:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        shared = max(width, 0) * max(height, 0)
        areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
        best = max(best, shared / (areas - shared))
    return best


# Read off the two photographs by eye, to a few pixels: 1 car, 2 chair, 3 monitor.
BY_EYE = {
    "000004": GroundTruth.from_boxes(
        [
            [15, 310, 83, 363],
            [83, 326, 116, 349],
            [108, 327, 146, 351],
            [138, 322, 187, 357],
            [174, 327, 249, 363],
            [231, 330, 333, 374],
            [361, 326, 499, 388],
        ],
        [1] * 7,
    ),
    "001551": GroundTruth.from_boxes([[171, 47, 354, 186], [0, 101, 144, 300], [166, 189, 455, 375]], [3, 2, 2]),
}


def real_boxes(folder: Path) -> dict[ImageId, Proposals]:
    """Selective search's boxes of the Fast R-CNN demo, in the order of their files."""
    files = [folder / f"{name}.jpg" for name in BY_EYE]
    data = Dataset("demo", (), (), tuple(ImageRecord(f.stem, f, read_header(f).image_size) for f in files), None)
    imported = ImportedProposals(path=str(folder), max_proposals=None)
    imported.check([data])
    return {record.image_id: imported.propose(read_image(record.path), record, None) for record in data.records}


def test_real_boxes_equal_the_plain_loop(shared_data: Path):
    found = real_boxes(shared_data / "proposals" / "fast_rcnn_demo_proposals")
    budgets = (1, 10, 100, 1000, 10_000)
    table = overlap_table(BY_EYE, found, 3, budgets)
    assert table.proposals.tolist() == [len(found["000004"]), len(found["001551"])]
    slow = [
        [slow_best(box, found[name].boxes.tolist()[:budget]) for budget in budgets]
        for name, truth in BY_EYE.items()
        for box in truth.boxes.tolist()
    ]
    assert table.best == pytest.approx(np.array(slow), abs=1e-6)


def test_selective_search_finds_what_the_eye_sees(shared_data: Path):
    found = real_boxes(shared_data / "proposals" / "fast_rcnn_demo_proposals")
    best = overlap_table(BY_EYE, found, 3, (10_000,)).best[:, 0]
    assert len(best) == 10
    assert (best >= 0.5).all()
