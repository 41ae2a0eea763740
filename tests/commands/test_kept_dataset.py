"""The run folder remembers its data set: later commands need `run_dir` alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import drawn
from tests.command_line import detpipe


def kept(run: Path) -> object:
    return json.loads((run / "dataset.json").read_text())


def test_a_run_remembers_it(finished_run: Path, voc_root: Path) -> None:
    assert kept(finished_run) == {"dataset": "voc", "settings": {"root": str(voc_root)}}


@pytest.mark.parametrize(
    "command",
    [
        ["eval"],
        ["detect", *drawn.settings("detect"), "overwrite=true"],
        ["crop", *drawn.settings("crop")],
        ["propose", *drawn.settings("propose")],
        ["check"],
        ["curve", "budgets=[10,60]", "resamples=10", "device=cpu"],
        ["proposals", "recall", "resamples=10"],
        ["proposals", "show", "count=1"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_with_run_dir_alone(
    command: list[str], run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = kept(run_copy)
    outcome = detpipe(*command, f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert outcome.err.count("using the run's own data set: dataset=voc") == 1
    assert kept(run_copy) == before


def test_a_path_of_proposals_names_the_run_folder(run_copy: Path, tmp_path: Path) -> None:
    outcome = detpipe("proposals", "recall", str(run_copy), "resamples=10", f"run_dir={tmp_path / 'out'}")
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_the_data_set_of_the_command_line_wins_and_is_kept(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    copy = drawn.copy(voc_root, tmp_path / "copy")
    outcome = detpipe("eval", *drawn.voc(copy), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert "using the run's own data set" not in outcome.err
    assert kept(run_copy) == {"dataset": "voc", "settings": {"root": str(copy)}}


def test_a_refused_data_set_is_not_kept(run_copy: Path, voc_root: Path) -> None:
    before = kept(run_copy)
    other = [*drawn.voc(voc_root), "dataset.test=trainval"]
    for command in (["detect", *drawn.settings("detect")], ["eval"], ["propose", *drawn.settings("propose")]):
        assert detpipe(*command, *other, f"run_dir={run_copy}").status == 1
        assert kept(run_copy) == before


def test_a_source_and_detections_of_others_do_not_change_it(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    before = kept(run_copy)
    image = voc_root / "JPEGImages" / f"{drawn.TEST[0]}.jpg"
    outcome = detpipe("detect", str(image), *drawn.settings("detect"), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert "using the run's own data set" not in outcome.err
    copy, file = drawn.copy(voc_root, tmp_path / "copy"), run_copy / "detections.json"
    assert detpipe("eval", *drawn.voc(copy), f"detections={file}", f"run_dir={run_copy}").status == 0
    assert kept(run_copy) == before


def test_a_run_folder_that_remembers_none_says_what_to_do(run_copy: Path, voc_root: Path) -> None:
    (run_copy / "dataset.json").unlink()
    outcome = detpipe("eval", f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "give dataset.root=DIR" in outcome.err
    assert detpipe("eval", *drawn.voc(voc_root), f"run_dir={run_copy}").status == 0
    assert detpipe("eval", f"run_dir={run_copy}").status == 0


def test_a_single_setting_without_the_data_set(run_copy: Path) -> None:
    outcome = detpipe("eval", "dataset.test=trainval", f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "give dataset.root=" in outcome.err
