"""The curves: by hand, and against the definitions one object at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.metrics.bootstrap import ImageBootstrap
from detpipe.metrics.overlap_table import OverlapTable, overlap_table
from detpipe.metrics.proposal_recall import recall_at_budgets
from detpipe.metrics.recall_curves import (
    SIZES,
    THRESHOLDS,
    curves_by_class,
    curves_by_size,
    log_budgets,
    of_size,
    recall_curves,
)
from detpipe.metrics.recall_measures import MEASURES
from detpipe.structures import GroundTruth
from tests.metrics.test_overlap_table import FOUND, TRUTH, slow_best
from tests.metrics.test_proposal_recall import proposals, random_boxes


def drawn(table: OverlapTable, resamples: int = 20) -> ImageBootstrap:
    return ImageBootstrap.draw(len(table.image_ids), resamples, seed=0)


def test_by_hand():
    table = overlap_table(TRUTH, FOUND, 3, (5, 1, 2, 3, 10))
    curves = recall_curves(table, drawn(table), (1, 10))
    assert (curves.objects, curves.longest) == (4, 3)
    # Best overlaps of the four objects: 1, 0.5, 0, 0; then 1, 0.8, 0, 0; then 1, 0.8, 0.7, 0.
    axis, recall = curves.curve("recall@0.7")
    assert axis == (1, 2, 3)
    assert recall.value.tolist() == [1 / 4, 2 / 4, 3 / 4]
    assert curves.at(10)["ar"].value == pytest.approx([2 * (0.5 + 0.3 + 0.2) / 4])
    at = dict(zip(THRESHOLDS, curves.by_iou[10].value.tolist(), strict=True))
    wanted = {0.5: 3 / 4, 0.7: 3 / 4, 0.71: 2 / 4, 0.8: 2 / 4, 0.81: 1 / 4, 1.0: 1 / 4}
    assert {threshold: at[threshold] for threshold in wanted} == wanted
    assert dict(zip(THRESHOLDS, curves.by_iou[1].value.tolist(), strict=True))[0.51] == 1 / 4


def test_the_area_under_recall_against_iou_is_ar():
    generator = np.random.default_rng(5)
    truth = {i: GroundTruth.from_boxes(random_boxes(generator, 40), [1] * 40) for i in range(20)}
    found = {i: proposals(*random_boxes(generator, 60).tolist()) for i in range(20)}
    table = overlap_table(truth, found, 1, (60,))
    curves = recall_curves(table, drawn(table), (60,))
    recall = curves.by_iou[60].value
    area = 0.01 * (recall[1:] + recall[:-1]).sum()  # twice the trapezoids of width 0.01
    assert curves.at(60)["ar"].value.item() == pytest.approx(area, abs=0.005)


def test_the_curve_ends_where_the_proposals_end():
    truth = {1: GroundTruth.from_boxes([[0, 0, 10, 10]], [1])}
    found = {1: proposals(*[[0, 0, 10, 1 + side] for side in range(5)])}
    for budgets, axis in (((1, 4, 5, 9), (1, 4, 5)), ((1, 4), (1, 4)), ((7, 1, 20), (1, 5)), ((8,), (5,))):
        table = overlap_table(truth, found, 1, budgets)
        curve = recall_curves(table, drawn(table)).curve("abo")
        assert curve[0] == axis
        assert curve[1].value == pytest.approx([budget / 10 for budget in axis])
    nothing = overlap_table(truth, {}, 1, (1, 10))
    assert recall_curves(nothing, drawn(nothing)).curve("abo")[0] == (1,)


def test_the_values_are_those_of_recall_json():
    table = overlap_table(TRUTH, FOUND, 3, (1, 2, 3))
    curves = recall_curves(table, drawn(table))
    for budget, recall in recall_at_budgets(table).items():
        got = {name: number.value.item() for name, number in curves.at(budget).items()}
        assert got == pytest.approx(recall.to_json())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_the_definitions(seed: int):
    generator = np.random.default_rng(seed)
    truth, found = {}, {}
    for image_id in range(4):
        n = int(generator.integers(0, 6)) + (image_id == 0)
        truth[image_id] = GroundTruth.from_boxes(random_boxes(generator, n) * 12, generator.integers(1, 4, n))
        if image_id != 3:  # its objects are missed
            boxes = random_boxes(generator, int(generator.integers(0, 30))) * 12
            found[image_id] = proposals(*boxes.tolist())
    table = overlap_table(truth, found, 3, (1, 5, 50))
    bootstrap = drawn(table, 3)
    curves = recall_curves(table, bootstrap, (5,))
    by_class, by_size = curves_by_class(table, bootstrap, "abc"), curves_by_size(table, bootstrap)
    objects = [
        (slow_best(box, found[i].boxes.tolist()[:5] if i in found else []), "abc"[label - 1], size_of(box))
        for i, one in truth.items()
        for box, label in zip(one.boxes.tolist(), one.labels.tolist(), strict=True)
    ]
    recall = [np.mean([best >= threshold - 1e-7 for best, _, _ in objects]) for threshold in THRESHOLDS]
    assert curves.by_iou[5].value == pytest.approx(recall)
    for part, key in ((by_class, 1), (by_size, 2)):
        assert sum(one.objects for one in part.values()) == len(objects)
        for name, one in part.items():
            own = [entry[0] for entry in objects if entry[key] == name]
            assert one.objects == len(own)
            abo = np.mean(own) if own else np.nan
            assert one.at(5)["abo"].value == pytest.approx([abo], nan_ok=True, abs=1e-6)


def size_of(box: list[float]) -> str:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return "small" if area < 32**2 else "medium" if area < 96**2 else "large"


def test_sizes_go_by_the_areas_of_the_annotation():
    truth = GroundTruth.from_boxes([[0, 0, 200, 200], [0, 0, 10, 10]], [1, 1])
    truth.areas[0] = 50  # a thin mask in a large box
    table = overlap_table({1: truth}, {}, 1, (1,))
    assert {name: one.objects for name, one in curves_by_size(table, drawn(table)).items()} == {
        "small": 2, "medium": 0, "large": 0
    }  # fmt: skip


def test_nothing_gives_null():
    for truth in ({}, {1: GroundTruth.from_boxes([], [])}):
        table = overlap_table(truth, {}, 2, (1, 10))
        curves = recall_curves(table, drawn(table), (10,))
        content = json.loads(json.dumps(curves.to_json(), allow_nan=False))
        assert (curves.objects, content["longest"]) == (0, 1)
        assert content["by_budget"]["budgets"] == [1]
        nothing = {"value": [None], "low": [None], "high": [None]}
        assert {name: content["by_budget"][name] for name in MEASURES} == dict.fromkeys(MEASURES, nothing)
        assert set(content["by_iou"]["10"]["value"]) == {None}


def test_budgets_on_a_log_axis():
    assert log_budgets(1) == (1,)
    assert log_budgets(10, a_decade=4) == (1, 2, 3, 6, 10)
    budgets = log_budgets()
    assert (budgets[0], budgets[-1]) == (1, 10_000)
    assert list(budgets) == sorted(set(budgets))
    assert max(np.diff(np.log10(budgets[10:]))) < 0.11
    with pytest.raises(ValueError, match="from 1"):
        log_budgets(0)


def test_what_is_refused():
    table = overlap_table(TRUTH, FOUND, 3, (1, 2))
    with pytest.raises(ValueError, match=r"got \[9\]"):
        recall_curves(table, drawn(table), (9,))
    with pytest.raises(ValueError, match=r"budgets \[1, 2\], got 9"):
        recall_curves(table, drawn(table)).at(9)


def test_each_area_has_one_size():
    areas = np.array([0, 1023.5, 1024, 9215, 9216, 1e9], np.float32)
    chosen = {name: of_size(areas, name).tolist() for name in SIZES}
    assert chosen["small"] == [True, True, False, False, False, False]
    assert chosen["medium"] == [False, False, True, True, False, False]
    assert chosen["large"] == [False, False, False, False, True, True]
    assert of_size(np.zeros(0, np.float32), "small").shape == (0,)
