"""`detpipe explain` on a finished run: what it prints and draws, and what it says about names it does not know."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from detpipe.datasets.image_file import read_image
from tests import drawn
from tests.command_line import Outcome, detpipe

NAME = drawn.TEST[0]


def explain(run: Path, *arguments: str) -> Outcome:
    return detpipe("explain", str(run), *arguments)


def test_the_objects_and_the_picture(run_copy: Path) -> None:
    before = {path: path.read_bytes() for path in run_copy.glob("*.json")}
    outcome = explain(run_copy, f"image={NAME}", "threshold=0.999")
    assert outcome.status == 0, outcome.err
    assert "\nobject 0, disc, box " in outcome.out
    assert "object 1, square, box " in outcome.out
    # No score is so high, so all is missed: each with its proposal, scores, threshold and what to do.
    assert "missed (" in outcome.out
    for word in ("Best proposal: rank ", " classified, IoU ", "background ", "Threshold: ", "Cause: ", "Change: "):
        assert word in outcome.out
    picture = run_copy / "explain" / f"{NAME}.jpg"
    assert str(picture) in outcome.out
    assert read_image(picture).shape[1] > 600
    assert {path: path.read_bytes() for path in run_copy.glob("*.json")} == before


def test_the_number_of_errors_is_that_of_blame(run_copy: Path) -> None:
    assert (
        detpipe("blame", f"run_dir={run_copy}", "second_opinion=none", "classify_objects=false", "resamples=0").status
        == 0
    )
    content = json.loads((run_copy / "blame.json").read_text())
    missed = false = 0
    for name in drawn.TEST:
        outcome = explain(run_copy, f"image={name}")
        missed += len(re.findall(r"^object .*: missed \(", outcome.out, re.MULTILINE))
        false += len(re.findall(r"^detection .*: false \(", outcome.out, re.MULTILINE))
    assert (missed, false) == (content["n_missed"], content["n_false"])


def test_the_name_may_be_an_id_a_file_or_a_path(run_copy: Path, voc_root: Path) -> None:
    texts = {
        explain(run_copy, f"image={name}").out
        for name in (NAME, f"{NAME}.jpg", f"JPEGImages/{NAME}.jpg", voc_root / "JPEGImages" / f"{NAME}.jpg")
    }
    assert len(texts) == 1
    assert "object 0" in texts.pop()


def test_one_object(run_copy: Path) -> None:
    outcome = explain(run_copy, f"image={NAME}", "object=1")
    assert outcome.status == 0, outcome.err
    assert re.findall(r"^(object|detection) (\d+),", outcome.out, re.MULTILINE) == [("object", "1")]
    whole = explain(run_copy, f"image={NAME}")
    assert outcome.out.splitlines()[0] == whole.out.splitlines()[0]  # the numbers are those of the image
    beyond = explain(run_copy, f"image={NAME}", "object=2")
    assert beyond.status == 1
    assert "object: expected a number below 2" in beyond.err


@pytest.mark.parametrize("name", ["test_O", "train_0", "nothing/like/it.jpg"])
def test_an_unknown_name(name: str, run_copy: Path) -> None:
    outcome = explain(run_copy, f"image={name}")
    assert outcome.status == 1
    assert f"got {name}; the nearest names are test_" in outcome.err
    assert not (run_copy / "explain").exists()


def test_no_name(run_copy: Path) -> None:
    outcome = explain(run_copy)
    assert outcome.status == 1
    assert "give image=NAME" in outcome.err


def test_a_run_folder_without_traces_and_proposals(run_copy: Path) -> None:
    (run_copy / "object_traces.json").unlink()
    (run_copy / "proposals.lmdb" / "manifest.json").unlink()
    outcome = explain(run_copy, f"image={NAME}")
    assert outcome.status == 0, outcome.err
    assert "object_traces.json: expected what became of each object" in outcome.err
    assert "overwrite=true" in outcome.err
    assert "object 0, disc" in outcome.out


def test_damaged_traces_are_one_sentence(run_copy: Path) -> None:
    (run_copy / "object_traces.json").write_text('{"dataset": 1}')
    outcome = explain(run_copy, f"image={NAME}")
    assert outcome.status == 1
    assert "object_traces.json: " in outcome.err
    assert "overwrite=true" in outcome.err


def test_a_folder_without_a_run(tmp_path: Path, voc_root: Path) -> None:
    outcome = detpipe("explain", f"run_dir={tmp_path / 'none'}", *drawn.voc(voc_root), f"image={NAME}")
    assert outcome.status == 1
    assert "detections.json" in outcome.err


def test_fast_rcnn(fast_run: Path, tmp_path: Path) -> None:
    run = drawn.copy(fast_run, tmp_path / "run")
    outcome = explain(run, f"image={NAME}", "threshold=0")
    assert outcome.status == 0, outcome.err
    assert "Best proposal: rank " in outcome.out
