"""The whole diagnosis on hand-made images, and its JSON and table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detpipe.classify.object_trace import ObjectTrace
from detpipe.diagnosis.diagnose import Inputs, OtherRun, diagnose, find_errors
from detpipe.diagnosis.oracles import Scene
from detpipe.diagnosis.result import BlameResult
from detpipe.report.blame_table import blame_text
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, HALF, SHORT, found, objects, traced

TRUTH = {
    "a": objects((BOX, CAT), (FAR, DOG)),
    "b": objects((BOX, CAT), (FAR, DOG), difficult=[1]),
    "unreadable": objects((BOX, DOG)),
}
DETECTIONS = {
    "a": found((0.9, BOX, CAT), (0.8, (99, 99, 110, 104), DOG), (0.7, BOX, DOG)),
    "b": found((0.9, FAR, DOG), (0.6, SHORT, CAT), (0.4, HALF, CAT)),
    "unreadable": found(),
}
TRACES = {
    "a": [traced(), traced(proposal_iou=0.6, iou=0.3)],
    "b": [traced(iou=0.5, score=0.4, scores={CAT: 0.4, 0: 0.3}), traced()],
}


def result(*, traces: dict[str, list[ObjectTrace]] | None = None, other: OtherRun | None = None) -> BlameResult:
    scene = Scene(TRUTH, DETECTIONS)
    errors = find_errors(scene, CLASSES, threshold=0.5, traces=traces, proposals=None)
    inputs = Inputs(
        dataset="drawn",
        classes=CLASSES,
        scene=scene,
        threshold=0.5,
        threshold_why="for the test",
        run_dir="runs/mine",
        second_opinion="Nobody was asked.",
        traces=traces,
    )
    return diagnose(inputs, errors, other=other, resamples=20)


def counts(content: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in content.items() if number}


def test_with_traces() -> None:
    content = json.loads(json.dumps(result(traces=TRACES).to_json(), allow_nan=False))
    assert counts(content["missed"]) == {"no_proposal": 1, "box_regression": 1, "threshold": 1}
    assert counts(content["false"]) == {"wrong_class": 1, "localisation": 2}
    assert (content["n_missed"], content["n_false"], content["n_objects"]) == (3, 3, 4)
    assert [(one["image"], one["object"], one["cause"]) for one in content["objects"]] == [
        ("a", 1, "box_regression"),
        ("b", 0, "threshold"),
        ("unreadable", 0, "no_proposal"),
    ]
    assert {"missed", "false"} < set(content["worth"]["wrong_class"])
    assert set(content["worth"]["budget"]) == {"dap", "interval"}
    assert content["oracle"]["proposals"] is None
    assert content["against"] is None


def test_without_traces() -> None:
    content = result().to_json()
    assert content["reduced"]
    assert counts(content["missed"]) == {"localisation": 1, "threshold": 1, "missed": 1}


def test_scores_and_threshold_compare_as_in_the_file_of_detections() -> None:
    """0.1 in float32 is 0.10000000149: who selects by this number would lose the detection with a score of 0.1."""
    scene = Scene({"a": objects((BOX, CAT))}, {"a": found((0.123456, FAR, CAT), (0.1, FAR, DOG))})
    errors = find_errors(scene, CLASSES, threshold=float(np.float32(0.1)), traces=None, proposals=None)
    inputs = Inputs(
        dataset="drawn",
        classes=CLASSES,
        scene=scene,
        threshold=float(np.float32(0.1)),
        threshold_why="for the test",
        run_dir="runs/mine",
        second_opinion="",
    )
    content = diagnose(inputs, errors, resamples=0).to_json()
    assert content["threshold"] == 0.1
    assert [one["score"] for one in content["detections"]] == [0.123456, 0.1]


def test_a_run_against_itself_and_against_one_without_traces() -> None:
    errors = find_errors(Scene(TRUTH, DETECTIONS), CLASSES, threshold=0.5, traces=TRACES, proposals=None)
    same = OtherRun(run_dir="o", detections=DETECTIONS, threshold=0.5, misses=errors.misses, reduced=False)
    comparison = result(traces=TRACES, other=same).comparison
    assert comparison is not None
    assert (comparison.objects, comparison.difference.value) == ([], 0)
    assert comparison.changes[("found", "found")] == 1
    reduced = find_errors(Scene(TRUTH, DETECTIONS), CLASSES, threshold=0.5, traces=None, proposals=None)
    other = OtherRun(run_dir="o", detections=DETECTIONS, threshold=0.5, misses=reduced.misses, reduced=True)
    compared = result(traces=TRACES, other=other)
    assert compared.comparison is not None
    assert compared.comparison.objects == []
    assert "No object changed" in blame_text(compared)


def test_the_table_has_each_number() -> None:
    one = result(traces=TRACES)
    text = blame_text(one)
    for name, number in [*one.missed.items(), *one.false.items()]:
        lines = [line for line in text.splitlines() if line.startswith(f"{name.value}:")]
        assert any(f" {number}  " in line for line in lines)
    assert "missed objects: 3" in text
    assert "false detections: 3" in text
    assert "Nobody was asked." in text


def test_no_images() -> None:
    inputs = Inputs(
        dataset="none",
        classes=CLASSES,
        scene=Scene({}, {}),
        threshold=0.5,
        threshold_why="",
        run_dir="",
        second_opinion="",
    )
    errors = find_errors(inputs.scene, CLASSES, threshold=0.5, traces=None, proposals=None)
    content = diagnose(inputs, errors, resamples=2).to_json()
    assert content["map"]["value"] is None
    assert (content["n_missed"], content["n_false"], content["advice"]) == (0, 0, [])
    json.dumps(content, allow_nan=False)


def test_detections_of_unknown_images() -> None:
    with pytest.raises(ValueError, match="ghost"):
        find_errors(Scene({}, {"ghost": found((0.9, BOX, CAT))}), CLASSES, threshold=0.5, traces=None, proposals=None)
