"""The data of the interactive images: what the rows say, by hand, and that they fit the room."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detpipe.diagnosis.diagnose import find_errors
from detpipe.diagnosis.oracles import Scene
from detpipe.report.run import explorer
from detpipe.report.run.explorer import Explored, explorer_data
from detpipe.report.run.reasons import Diagnosis, Reason, reasons
from detpipe.structures import Dataset, GroundTruth
from tests.report.run.test_page import found, make

BOXES, SCORES, LABELS = [[5, 5, 40, 40], [60, 60, 79, 79]], [0.9, 0.8], [1, 2]


def explored(dataset: Dataset, **more: object) -> Explored:
    detections = {record.image_id: found([], [], []) for record in dataset.records}
    detections |= {dataset.records[0].image_id: found(BOXES, SCORES, LABELS)}
    truth = dataset.measured_truth or {}
    errors = find_errors(Scene(truth, detections), dataset.classes, threshold=0.85, traces=None, proposals=None)
    diagnosis = reasons(truth, detections, dataset.classes, errors, threshold=0.85)
    values = {"threshold": 0.85, "how": "as set", "diagnosis": diagnosis, **more}
    return Explored(dataset, detections, **values)  # type: ignore[arg-type]


def test_the_rows_by_hand(tmp_path: Path) -> None:
    dataset = make(tmp_path, ["a.jpg", "b.jpg"])
    proposals = {"b.jpg": np.array([[1, 2, 3.6, 4]], np.float32)}
    data = explorer_data(explored(dataset, proposals=proposals), room=1_000_000)
    first, second = data["images"]
    texts = data["texts"]
    assert (first["name"], first["size"], first["proposals"]) == ("a.jpg", [80, 80], [])
    assert first["src"].startswith("data:image/jpeg;base64,")
    cat, dog = first["objects"]
    assert cat == [5, 5, 40, 40, 1, 0, 0.9]
    assert dog[:7] == [40, 10, 75, 75, 2, 0, -1.0]
    assert [texts[i] for i in dog[7:]] == ["not found", "no detection of its class near it"]
    assert first["detections"][0] == [5, 5, 40, 40, 1, 0.9, 1]
    assert first["detections"][1][:7] == [60, 60, 79, 79, 2, 0.8, 0]
    # IoU 225 / 2411: too small for a box of this object.
    kind, why = (texts[i] for i in first["detections"][1][7:])
    assert (kind, why) == ("background", "no object is annotated here")
    assert second["proposals"] == [[1, 2, 4, 4]]
    assert [texts[one[7]] for one in second["objects"]] == ["not found", "not found"]


def test_counts_at_each_threshold(tmp_path: Path) -> None:
    data = explorer_data(explored(make(tmp_path, ["a.jpg", "b.jpg"]), threshold=0.8123), room=1_000_000)
    assert data["thresholds"][80:84] == [0.8, 0.81, 0.8123, 0.82]
    assert data["objects"] == [2, 2]
    at = data["thresholds"].index(0.8)
    assert [row[at] for row in data["shown"]] == [1, 1]
    assert [row[at + 1] for row in data["shown"]] == [1, 0]
    assert [row[at] for row in data["correct"]] == [1, 0]
    assert [row[-1] for row in data["shown"]] == [0, 0]


def test_another_diagnosis_takes_the_place_of_the_pages_own(tmp_path: Path) -> None:
    own = Diagnosis({"a.jpg": {1: Reason("budget", "rank 812 of 500")}}, {"a.jpg": {}}, low_score="threshold")
    data = explorer_data(explored(make(tmp_path, ["a.jpg"]), diagnosis=own), room=1_000_000)
    assert [data["texts"][i] for i in data["images"][0]["objects"][1][7:]] == ["budget", "rank 812 of 500"]
    assert data["images"][0]["detections"][1] == [60, 60, 79, 79, 2, 0.8, 0]
    assert data["texts"][data["lowScore"]] == "threshold"


def test_facts_of_a_missed_object_follow_its_reason_unless_they_need_too_much_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = ("Best proposal: rank 3 of 500 classified, IoU 0.71.", "Change: classify more proposals.")
    own = Diagnosis({"a.jpg": {1: Reason("budget", "rank 812 of 500", facts)}}, {"a.jpg": {}})
    dataset = make(tmp_path, ["a.jpg"])
    for share, shown in ((0.25, facts), (1e-5, ())):
        monkeypatch.setattr(explorer, "FACTS_SHARE", share)
        data = explorer_data(explored(dataset, diagnosis=own), room=1_000_000)
        row = data["images"][0]["objects"][1]
        assert [data["texts"][i] for i in row[7:]] == ["budget", "rank 812 of 500", *shown]


def test_difficult_objects_are_not_counted(tmp_path: Path) -> None:
    dataset = make(tmp_path, ["a.jpg"])
    truth = dataset.ground_truth
    assert truth is not None
    gt = truth["a.jpg"]
    aside = GroundTruth(gt.boxes, gt.labels, np.array([True, False]), gt.crowd, gt.areas)
    changed = Dataset(dataset.name, dataset.classes, dataset.category_ids, dataset.records, {"a.jpg": aside})
    data = explorer_data(explored(changed), room=1_000_000)
    assert [one[5] for one in data["images"][0]["objects"]] == [1, 0]
    assert data["images"][0]["detections"][0][6] == 2
    assert data["objects"] == [0, 1]


def test_pictures_shrink_with_the_room_and_images_are_left_out_at_last(tmp_path: Path) -> None:
    dataset = make(tmp_path, [f"{i}.jpg" for i in range(12)], side=500)
    for room in (2_000_000, 400_000, 60_000, 30_000, 3_000):
        data = explorer_data(explored(dataset), room=room)
        assert len(json.dumps(data, separators=(",", ":"))) <= max(room, 3_500)
        assert data["total"] == 12
        assert data["objects"] == [12, 12]  # also of those that are left out
        assert 1 < len(data["images"]) < 12 if room == 30_000 else len(data["images"]) == 12 * (room > 30_000)
    assert explorer_data(explored(dataset), room=30_000)["images"][0]["name"] == "0.jpg"


def test_an_unreadable_image_has_no_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = make(tmp_path, ["a.jpg"])
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert explorer_data(explored(dataset), room=1_000_000)["images"][0]["src"] is None
    assert "a.jpg" in caplog.text


def test_nothing_gives_no_images() -> None:
    empty = Dataset("bare", (), (), (), None)
    data = explorer_data(Explored(empty, {}, 0.5, "the default"), room=1_000)
    assert (data["images"], data["annotated"], data["shown"], data["objects"]) == ([], False, [], [])
