"""One method's numbers together, two methods compared, and the table for the terminal."""

from __future__ import annotations

import json

import pytest

from detpipe.metrics.bootstrap import ImageBootstrap
from detpipe.metrics.method_recall import MethodRecall, compare, difference_text, measure_method, recall_text
from detpipe.metrics.overlap_table import overlap_table
from detpipe.structures import GroundTruth, ImageId, Proposals
from tests.metrics.test_overlap_table import FOUND, TRUTH
from tests.metrics.test_proposal_recall import proposals

CLASSES = ("cat", "dog", "owl", "eel")


def measured(
    found: dict[ImageId, Proposals], truth: dict[ImageId, GroundTruth] = TRUTH, resamples: int = 30
) -> MethodRecall:
    table = overlap_table(truth, found, len(CLASSES), (1, 2, 3, 10))
    bootstrap = ImageBootstrap.draw(len(table.image_ids), resamples, seed=0)
    return measure_method(table, bootstrap, CLASSES, budgets=(3, 1), iou_budgets=(10,))


def test_by_hand():
    method = measured(FOUND)
    assert (method.budgets, method.images, method.empty, method.mean_proposals) == ((1, 3), 4, 1, 1.5)
    assert {name: one.objects for name, one in method.by_class.items()} == {"cat": 2, "dog": 1, "owl": 1, "eel": 0}
    content = json.loads(json.dumps(method.to_json(), allow_nan=False))
    assert content["images_without_proposals"] == 1
    assert content["at"]["3"]["abo"]["value"] == pytest.approx((1 + 0.8 + 0.7 + 0) / 4)
    assert content["by_class"]["dog"]["at"]["3"]["abo"]["value"] == pytest.approx(0.7)
    assert content["by_class"]["eel"] == {
        "objects": 0,
        "at": {str(b): dict.fromkeys(content["at"]["1"], dict.fromkeys(("value", "low", "high"))) for b in (1, 3)},
    }
    assert content["by_size"]["small"]["objects"] == 4
    assert content["curves"]["by_budget"]["budgets"] == [1, 2, 3]


def test_a_method_against_itself_and_against_none():
    method = measured(FOUND)
    for difference in compare(method, measured(FOUND)).values():
        assert difference.difference.value.tolist() == [0, 0]
        assert not difference.difference.samples[
            ~(difference.difference.samples != difference.difference.samples)
        ].any()
        assert difference.p.tolist() == [1, 1]
    better = compare(method, measured({}))
    assert better["abo"].difference.value == pytest.approx(method.curves.by_budget["abo"].value[[0, 2]])
    assert compare(measured({}), method)["abo"].difference.value == pytest.approx(-better["abo"].difference.value)


def test_other_objects_can_not_be_compared():
    fewer = {name: truth for name, truth in TRUTH.items() if name != "b"}
    with pytest.raises(ValueError, match=r"4 objects at .* and 2 objects"):
        compare(measured(FOUND), measured({}, fewer))


def test_the_table_for_the_terminal():
    lines = recall_text({"mine": measured(FOUND), "a longer name": measured({}, resamples=0)}).splitlines()
    assert lines[0].split() == ["boxes", "method", "recall@0.5", "recall@0.7", "abo", "mabo", "ar"]
    assert lines[2].split()[:2] == ["1", "mine"]
    assert lines[4].startswith("    3  mine           0.750 ±")
    assert lines[5].split() == ["a", "longer", "name", *["0.000"] * 5]
    assert len({len(line) for line in lines[:3]}) == 1


def test_the_difference_for_the_terminal():
    paired = {"no": compare(measured(FOUND), measured({})), "it": compare(measured(FOUND), measured(FOUND))}
    first, second = difference_text("mine", paired, 3).splitlines()
    ar = measured(FOUND).curves.at(3)["ar"].value.item()
    assert first.startswith(f"mine minus no, ar at 3: +{ar:.3f} (+")
    assert second == "mine minus it, ar at 3: +0.000 (+0.000 to +0.000, p 1.000)"
    unsure = {"no": compare(measured(FOUND, resamples=0), measured({}, resamples=0))}
    assert difference_text("mine", unsure, 3) == f"mine minus no, ar at 3: +{ar:.3f}"
    assert difference_text("mine", {}, 3) == ""


def test_of_nothing():
    for truth in ({}, {"a": GroundTruth.from_boxes([], [])}):
        method = measured({}, truth)
        assert recall_text({"none": method}).splitlines()[2].split() == ["1", "none", *["-"] * 5]
        assert difference_text("none", {"it": compare(method, method)}, 1) == "none minus it, ar at 1: -"
        assert set(compare(method, method)["ar"].to_json()["p"]) == {None}
        json.dumps(method.to_json(), allow_nan=False)
    assert len(recall_text({}).splitlines()) == 2
    assert measured({"a": proposals([0, 0, 1, 1])}, {"a": GroundTruth.from_boxes([], [])}).empty == 0
