"""`detpipe blame` on the drawn run, and on detections of another program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import drawn
from tests.command_line import detpipe
from tests.commands.test_evaluate import perfect

CAUSES = ("no_proposal", "budget", "box_regression", "background", "wrong_class", "threshold", "suppressed")
REDUCED = ("localisation", "wrong_class", "threshold", "suppressed", "missed")
TYPES = ("wrong_class", "localisation", "both", "duplicate", "background", "unlabelled")
FAST = ("resamples=50", "device=cpu")


def blame(run: Path, *words: str) -> dict[str, Any]:
    outcome = detpipe("blame", *FAST, f"run_dir={run}", *words)
    assert outcome.status == 0, outcome.err
    content: dict[str, Any] = json.loads((run / "blame.json").read_text())
    return content


def refusal(*words: str) -> str:
    outcome = detpipe("blame", *FAST, *words)
    assert outcome.status == 1
    assert outcome.err.strip().count("\n") <= 3, outcome.err
    return outcome.err


def adds_up(content: dict[str, Any], causes: tuple[str, ...]) -> None:
    assert sorted(content["missed"]) == sorted(causes)
    assert list(content["false"]) == list(TYPES)
    assert sum(content["missed"].values()) == content["n_missed"] == len(content["objects"])
    assert sum(content["false"].values()) == content["n_false"] == len(content["detections"])
    assert set(content["worth"]) == {*causes, *TYPES}
    for one in content["worth"].values():
        assert one["interval"][0] <= one["dap"] <= one["interval"][1]
    assert sorted(content["oracle"]) == ["boxes", "classes", "proposals"]
    assert all(one["at_most"] > 0 for one in content["advice"])
    for groups in ("by_class", "by_size", "by_crowding"):
        assert sum(one["objects"] for one in content[groups]) == content["n_objects"]
        assert sum(one["n_missed"] for one in content[groups]) == content["n_missed"]
    assert sum(one["n_false"] for one in content["by_class"]) == content["n_false"]


def test_a_run(run_copy: Path) -> None:
    outcome = detpipe("blame", *FAST, f"run_dir={run_copy}", "threshold=0.2")
    assert outcome.status == 0, outcome.err
    first = (run_copy / "blame.json").read_bytes()
    content = json.loads(first)
    adds_up(content, CAUSES)
    assert content["threshold"] == 0.2
    assert not content["reduced"]
    assert content["oracle"]["proposals"]["ap"] is not None
    assert f"missed objects: {content['n_missed']}" in outcome.out
    assert "no_proposal" in outcome.out
    blame(run_copy, "threshold=0.2")
    assert (run_copy / "blame.json").read_bytes() == first


def test_a_run_without_traces_and_proposals_is_in_the_reduced_form(run_copy: Path) -> None:
    (run_copy / "object_traces.json").unlink()
    shutil.rmtree(run_copy / "proposals.lmdb")
    outcome = detpipe("blame", *FAST, f"run_dir={run_copy}", "classify_objects=false")
    assert outcome.status == 0, outcome.err
    assert "object_traces.json" in outcome.err
    assert "overwrite=true" in outcome.err
    content = json.loads((run_copy / "blame.json").read_text())
    adds_up(content, REDUCED)
    assert content["oracle"]["proposals"] is None


def test_perfect_detections_of_another_program(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(perfect(voc_root)))
    content = blame(tmp_path / "run", *drawn.voc(voc_root), f"detections={tmp_path / 'theirs.json'}")
    adds_up(content, REDUCED)
    assert (content["n_missed"], content["n_false"], content["map"]["value"], content["advice"]) == (0, 0, 1, [])


def test_causes_and_types_of_another_program(voc_root: Path, tmp_path: Path) -> None:
    rows = perfect(voc_root)  # a disc and a square in each of four images
    rows[0]["category_id"] = 2  # the first disc is taken for a square
    rows[1]["score"] = 0.1  # the first square has a low score
    x, y, width, height = rows[2]["bbox"]
    rows[2]["bbox"] = [x, y, width, 0.4 * height]  # the second disc's box is too short
    rows[3] = {**rows[3], "bbox": [0, 0, 4, 4]}  # the second square is not found
    rows.append(rows[4])  # the third disc twice
    (tmp_path / "theirs.json").write_text(json.dumps(rows))
    content = blame(tmp_path / "run", *drawn.voc(voc_root), f"detections={tmp_path / 'theirs.json'}", "threshold=0.5")
    adds_up(content, REDUCED)
    assert content["missed"] == {"localisation": 1, "wrong_class": 1, "threshold": 1, "suppressed": 0, "missed": 1}
    assert content["false"] == {
        "wrong_class": 1, "localisation": 1, "both": 0, "duplicate": 1, "background": 1, "unlabelled": 0
    }  # fmt: skip
    first = content["objects"][0]
    assert (first["image"], first["object"], first["cause"], first["taken_for"]) == (
        drawn.TEST[0], 0, "wrong_class", "square"
    )  # fmt: skip


def test_no_detections_at_all(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text("[]")
    content = blame(tmp_path / "run", *drawn.voc(voc_root), f"detections={tmp_path / 'theirs.json'}")
    assert content["missed"]["missed"] == content["n_missed"] == content["n_objects"] == 8
    assert content["map"]["value"] == 0


def test_against_another_run(run_copy: Path, finished_run: Path) -> None:
    content = blame(run_copy, f"against={finished_run}", "classify_objects=false", "second_opinion=none")
    against = content["against"]
    assert against["difference"]["value"] == 0
    assert against["difference"]["interval"] == [0, 0]
    assert against["objects"] == against["changes"] == []


def test_against_a_run_of_other_images_is_refused(run_copy: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run_copy, tmp_path / "other")
    manifest = json.loads((other / "detections.manifest.json").read_text())
    manifest["inputs"]["images"] = "0" * 32
    (other / "detections.manifest.json").write_text(json.dumps(manifest))
    assert "other images" in refusal(f"run_dir={run_copy}", f"against={other}")
    description = json.loads((other / "classifier" / "classifier.json").read_text())
    text = json.dumps(description).replace('"square"', '"triangle"')
    (other / "classifier" / "classifier.json").write_text(text)
    assert "against=" in refusal(f"run_dir={run_copy}", f"against={other}")


def test_a_folder_without_detections_is_refused(voc_root: Path, run_copy: Path, tmp_path: Path) -> None:
    assert "detections.json" in refusal(*drawn.voc(voc_root), f"run_dir={tmp_path / 'empty'}")
    assert "against" in refusal(f"run_dir={run_copy}", f"against={tmp_path / 'empty'}")


def test_detections_of_unknown_images_are_refused(voc_root: Path, tmp_path: Path) -> None:
    rows = [{**one, "image_id": "nowhere"} for one in perfect(voc_root)]
    (tmp_path / "theirs.json").write_text(json.dumps(rows))
    file = f"detections={tmp_path / 'theirs.json'}"
    assert "nowhere" in refusal(*drawn.voc(voc_root), file, f"run_dir={tmp_path / 'run'}")


def test_other_classes_are_refused(run_copy: Path, voc_root: Path) -> None:
    assert "square" in refusal(*drawn.voc(voc_root), "dataset.classes=[square,disc]", f"run_dir={run_copy}")


def test_images_without_annotations_are_refused(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text("[]")
    words = ["dataset=images", f"dataset.root={voc_root / 'JPEGImages'}", f"detections={tmp_path / 'theirs.json'}"]
    assert "annotations" in refusal(*words, f"run_dir={tmp_path / 'run'}")


@pytest.mark.parametrize(("word", "named"), [("threshold=nan", "threshold"), ("resamples=-1", "resamples")])
def test_settings_out_of_range(word: str, named: str) -> None:
    assert named in refusal(word)
