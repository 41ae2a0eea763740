"""`detpipe compress` on a finished Fast R-CNN: a detector beside its proposals, and what can't be compressed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.classify.kinds import load_spec
from detpipe.runs.detect_settings import kept_detect_settings
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe


def test_a_compressed_detector_detects(fast_run: Path, voc_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "thin"
    outcome = detpipe("compress", f"run_dir={fast_run}", f"out={out}", "ranks=[8,0]")
    assert outcome.status == 0, outcome.err
    assert load_spec(out / "classifier").svd_ranks == (8, 0)
    assert kept_detect_settings(out / "classifier") == kept_detect_settings(fast_run / "classifier") != {}
    numbers = read_manifest(out / "classifier").summary
    assert numbers["parameters_before"] == 16 * 72 + 16 + 16 * 16 + 16
    assert numbers["parameters"] == 8 * 72 + 16 * 8 + 16 + 16 * 16 + 16
    assert (0 < numbers["fc1_kept"] < 1, numbers["fc2_kept"]) == (True, 1.0)
    for command in ("detect", "eval"):
        outcome = detpipe(command, *drawn.voc(voc_root), *drawn.settings(command), f"run_dir={out}")
        assert outcome.status == 0, outcome.err
    assert json.loads((out / "detections.json").read_text())
    again = detpipe("compress", f"run_dir={out}", f"out={tmp_path / 'thinner'}")
    assert (again.status, "compressed already" in again.err) == (1, True)


def test_made_anew_it_stands_beside_the_proposals_of_now(fast_run: Path, tmp_path: Path) -> None:
    run, out = drawn.copy(fast_run, tmp_path / "run"), tmp_path / "thin"
    assert detpipe("compress", f"run_dir={run}", f"out={out}", "ranks=[8,0]").status == 0
    kept = (out / "proposals.lmdb" / "manifest.json").stat().st_mtime_ns
    assert detpipe("compress", f"run_dir={run}", f"out={out}", "ranks=[8,0]").status == 0
    assert (out / "proposals.lmdb" / "manifest.json").stat().st_mtime_ns == kept
    manifest = run / "proposals.lmdb" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"max_proposals": ', '"max_proposals": 1'))
    assert detpipe("compress", f"run_dir={run}", f"out={out}", "ranks=[8,0]", "overwrite=true").status == 0
    assert read_manifest(out / "proposals.lmdb") == read_manifest(run / "proposals.lmdb")


def test_full_ranks_detect_the_same(fast_run: Path, voc_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    assert detpipe("compress", f"run_dir={fast_run}", f"out={out}", "ranks=[16,16]").status == 0
    assert detpipe("detect", *drawn.voc(voc_root), *drawn.settings("detect"), f"run_dir={out}").status == 0
    before, after = (json.loads((run / "detections.json").read_text()) for run in (fast_run, out))
    assert len(before) == len(after)
    scores = [[one["score"] for one in found] for found in (before, after)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ranks=[1]"], "expected two numbers"),
        (["keep=0"], "expected a share"),
        (["ranks=[99,0]"], "expected a rank of 1 to 16"),
    ],
)
def test_settings_that_can_t_be(fast_run: Path, tmp_path: Path, words: list[str], said: str) -> None:
    outcome = detpipe("compress", f"run_dir={fast_run}", f"out={tmp_path / 'thin'}", *words)
    assert outcome.status == 1
    assert said in outcome.err


def test_an_impossible_rank_does_not_delete_the_earlier_result(fast_run: Path, tmp_path: Path) -> None:
    """The ranks are checked before the work, and before overwrite=true removes a folder."""
    out = tmp_path / "thin"
    assert detpipe("compress", f"run_dir={fast_run}", f"out={out}", "ranks=[8,0]").status == 0
    outcome = detpipe("compress", f"run_dir={fast_run}", f"out={out}", "ranks=[8,17]", "overwrite=true")
    assert outcome.status == 1
    assert "ranks: expected a rank of 1 to 16 for fc2" in outcome.err
    assert load_spec(out / "classifier").svd_ranks == (8, 0)


def test_the_kind_is_checked_before_the_weights_are_read(finished_run: Path, fast_run: Path, tmp_path: Path) -> None:
    for run, said in ((finished_run, "head=fast_rcnn"), (fast_run, "proposals.lmdb")):
        copy = drawn.copy(run, tmp_path / run.name)
        (copy / "classifier" / "weights.safetensors").write_bytes(b"no weights")
        (copy / "proposals.lmdb" / "manifest.json").write_text("no JSON")
        outcome = detpipe("compress", f"run_dir={copy}", f"out={tmp_path / 'thin'}")
        assert outcome.status == 1
        assert said in outcome.err
        assert not (tmp_path / "thin").exists()


def test_the_run_itself_is_never_the_place(fast_run: Path) -> None:
    outcome = detpipe("compress", f"run_dir={fast_run}", f"out={fast_run}")
    assert (outcome.status, "expected another folder" in outcome.err) == (1, True)


def test_a_classifier_of_crops_has_no_such_layers(finished_run: Path, tmp_path: Path) -> None:
    outcome = detpipe("compress", f"run_dir={finished_run}", f"out={tmp_path / 'thin'}")
    assert outcome.status == 1
    assert "Fast R-CNN (head=fast_rcnn)" in outcome.err
