"""Recall of proposals: by hand, and against a plain slow implementation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.metrics.proposal_recall import BUDGETS, proposal_recall
from detpipe.structures import GroundTruth, Proposals

NAMES = ["recall@0.5", "recall@0.7", "abo", "mabo", "ar"]


def proposals(*boxes: list[float]) -> Proposals:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Proposals(array, np.linspace(1, 0, len(array), dtype=np.float32))


def test_by_hand():
    truth = {
        "a": GroundTruth.from_boxes([[0, 0, 10, 10], [20, 0, 30, 10]], [1, 2]),
        "b": GroundTruth.from_boxes([[0, 0, 10, 10]], [1]),
        "missed": GroundTruth.from_boxes([[0, 0, 4, 4]], [3]),
    }
    found = {
        # IoU with the first: 0.5, then 0.8; with the second 0, then 0, then 0.7.
        "a": proposals([0, 0, 10, 5], [0, 0, 10, 8], [20, 0, 30, 7]),
        "b": proposals([0, 0, 10, 10]),
    }
    recall = proposal_recall(truth, found, 3, budgets=(1, 2, 3))
    # Best overlaps of the four objects: 0.5, 0, 1, 0.
    assert recall[1].to_json() == pytest.approx(
        {"recall@0.5": 2 / 4, "recall@0.7": 1 / 4, "abo": 1.5 / 4, "mabo": (0.75 + 0 + 0) / 3, "ar": 2 * 0.5 / 4}
    )
    # 0.8, 0, 1, 0.
    assert recall[2].to_json() == pytest.approx(
        {"recall@0.5": 2 / 4, "recall@0.7": 2 / 4, "abo": 1.8 / 4, "mabo": 0.9 / 3, "ar": 2 * (0.3 + 0.5) / 4}
    )
    # 0.8, 0.7, 1, 0.
    assert recall[3].to_json() == pytest.approx(
        {"recall@0.5": 3 / 4, "recall@0.7": 3 / 4, "abo": 2.5 / 4, "mabo": 1.6 / 3, "ar": 2 * (0.3 + 0.2 + 0.5) / 4}
    )


def test_perfect_and_absent_proposals():
    truth = {1: GroundTruth.from_boxes([[0, 0, 5, 5], [3, 3, 9, 9]], [1, 1])}
    perfect = proposal_recall(truth, {1: proposals([0, 0, 5, 5], [3, 3, 9, 9])}, 1)
    assert list(perfect) == list(BUDGETS)
    assert [perfect[10].to_json()[name] for name in NAMES] == [1, 1, 1, 1, 1]
    for nothing in ({}, {1: proposals()}):
        assert [proposal_recall(truth, nothing, 1)[10].to_json()[name] for name in NAMES] == [0, 0, 0, 0, 0]


def test_no_objects_is_not_a_number():
    truth = {1: GroundTruth.from_boxes([], [])}
    for data in (truth, {}):
        recall = proposal_recall(data, {}, 3)[100]
        assert math.isnan(recall.ar)
        assert recall.to_json() == dict.fromkeys(NAMES)
        json.dumps(recall.to_json(), allow_nan=False)


def test_difficult_objects_and_crowds_do_not_count():
    truth = GroundTruth.from_boxes([[0, 0, 5, 5], [50, 50, 60, 60], [70, 70, 80, 80]], [1, 1, 2])
    truth.difficult[1] = truth.crowd[2] = True
    recall = proposal_recall({1: truth}, {1: proposals([0, 0, 5, 5])}, 2)
    assert [recall[10].to_json()[name] for name in NAMES] == [1, 1, 1, 1, 1]


def test_one_proposal_may_serve_two_objects():
    truth = {1: GroundTruth.from_boxes([[0, 0, 10, 10], [0, 0, 10, 8]], [1, 1])}
    assert proposal_recall(truth, {1: proposals([0, 0, 10, 9])}, 1)[10].recall_70 == 1


def test_a_threshold_is_reached_by_equality():
    # IoU 7/10 in float32.
    truth = {1: GroundTruth.from_boxes([[0, 0, 10, 10]], [1])}
    assert proposal_recall(truth, {1: proposals([0, 0, 10, 7])}, 1)[10].recall_70 == 1
    assert proposal_recall(truth, {1: proposals([0, 0, 10, 5])}, 1)[10].recall_50 == 1


def test_what_is_refused():
    truth = {1: GroundTruth.from_boxes([[0, 0, 5, 5]], [2])}
    with pytest.raises(ValueError, match="no ground truth"):
        proposal_recall(truth, {2: proposals()}, 2)
    with pytest.raises(ValueError, match="1 twice"):
        proposal_recall(truth, [(1, proposals()), (1, proposals())], 2)
    with pytest.raises(ValueError, match=r"labels 1\.\.1"):
        proposal_recall(truth, {}, 1)
    for budgets in ((), (0,)):
        with pytest.raises(ValueError, match="budgets"):
            proposal_recall(truth, {}, 2, budgets=budgets)


def slow(truth: dict[int, GroundTruth], found: dict[int, Proposals], budget: int) -> dict[str, float]:
    """The definitions, one box at a time; AR by a fine sum over thresholds."""
    best: list[float] = []
    labels: list[int] = []
    for image_id, objects in truth.items():
        for box, label, difficult, crowd in zip(
            objects.boxes.tolist(), objects.labels.tolist(), objects.difficult, objects.crowd, strict=True
        ):
            if difficult or crowd:
                continue
            overlaps = [0.0]
            for other in found[image_id].boxes.tolist()[:budget] if image_id in found else []:
                width = min(box[2], other[2]) - max(box[0], other[0])
                height = min(box[3], other[3]) - max(box[1], other[1])
                shared = max(width, 0) * max(height, 0)
                areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
                overlaps.append(shared / (areas - shared) if areas > shared else 0.0)
            best.append(max(overlaps))
            labels.append(label)
    steps = np.linspace(0.5, 1, 2001)
    recalls = [np.mean([o >= t for o in best]) for t in (steps[:-1] + steps[1:]) / 2]
    classes = [np.mean([o for o, label in zip(best, labels, strict=True) if label == k]) for k in set(labels)]
    return {
        "recall@0.5": np.mean([o >= 0.5 for o in best]),
        "recall@0.7": np.mean([o >= 0.7 - 1e-7 for o in best]),
        "abo": np.mean(best),
        "mabo": np.mean(classes),
        "ar": np.mean(recalls),
    }


def random_boxes(generator: np.random.Generator, n: int) -> np.ndarray:
    corner = generator.integers(0, 12, (n, 2))
    return np.concatenate([corner, corner + generator.integers(1, 12, (n, 2))], axis=1).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_the_definitions(seed: int):
    generator = np.random.default_rng(seed)
    truth, found = {}, {}
    for image_id in range(4):
        n = int(generator.integers(0, 6)) + (image_id == 0)
        truth[image_id] = GroundTruth.from_boxes(random_boxes(generator, n), generator.integers(1, 4, n))
        truth[image_id].difficult[1:] = generator.random(max(n - 1, 0)) < 0.2
        truth[image_id].crowd[1:] = generator.random(max(n - 1, 0)) < 0.2
        if image_id != 3:
            found[image_id] = proposals(*random_boxes(generator, int(generator.integers(0, 30))).tolist())
    recalls = proposal_recall(truth, iter(found.items()), 3, budgets=(1, 5, 50))
    for budget, recall in recalls.items():
        assert recall.to_json() == pytest.approx(slow(truth, found, budget), abs=6e-4)
    other_way = proposal_recall(dict(reversed(truth.items())), list(reversed(found.items())), 3, budgets=(1, 5, 50))
    assert other_way == recalls  # to the last digit, whatever the order of the images
    values = [list(recall.to_json().values()) for recall in recalls.values()]
    assert (np.diff(values, axis=0) >= 0).all()  # more proposals never find less
