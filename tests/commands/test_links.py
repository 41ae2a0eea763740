"""A run folder from somebody else, with links out of it: no command writes where they lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import drawn
from tests.command_line import detpipe


def contents(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("link", "target"),
    [
        (".hydra", "important"),
        ("detpipe.log", "important/new.txt"),
        ("classifier", "important"),
        ("proposals.lmdb", "empty"),
        ("proposals.lmdb/data.mdb", "important/diary.txt"),
        ("features", "empty"),
        ("detections.lmdb", "empty"),
    ],
)
def test_a_link_out_of_the_run_folder_is_refused(voc_root: Path, tmp_path: Path, link: str, target: str) -> None:
    (tmp_path / "home" / "important").mkdir(parents=True)
    (tmp_path / "home" / "empty").mkdir()
    (tmp_path / "home" / "important" / "diary.txt").write_text("dear diary\n")
    run = tmp_path / "run"
    (run / link).parent.mkdir(parents=True)
    (run / link).symlink_to(tmp_path / "home" / target)
    before = contents(tmp_path / "home")
    outcome = detpipe("check", *drawn.voc(voc_root), "workers=0", f"run_dir={run}")
    assert outcome.status == 1
    assert f"detpipe check: {run / link}: " in outcome.err
    assert "got a link to" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert contents(tmp_path / "home") == before
    assert not list((tmp_path / "home" / "empty").iterdir())


@pytest.mark.parametrize(
    "command", ["run", "propose", "crop", "train-multibox", "features", "detect", "eval", "export"]
)
def test_every_command_refuses_it(tmp_path: Path, command: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "classifier").symlink_to(tmp_path / "empty")
    outcome = detpipe(command, "dataset=demo", f"run_dir={tmp_path / 'run'}", "overwrite=true")
    assert outcome.status == 1
    assert "classifier: expected a file or folder of the run itself, got a link to" in outcome.err
    assert not list((tmp_path / "empty").iterdir())


def test_a_file_that_is_a_link_is_replaced_where_it_leads_into_the_folder(voc_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("mine")
    (run / "check.json").symlink_to("mine.txt")
    assert detpipe("check", *drawn.voc(voc_root), "workers=0", f"run_dir={run}").status == 0
    assert (run / "mine.txt").read_text() == "mine"
    assert not (run / "check.json").is_symlink()


def test_a_run_folder_that_is_a_link_is_fine(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert detpipe("check", *drawn.voc(voc_root), "workers=0", f"run_dir={tmp_path / 'run'}").status == 0
    assert (tmp_path / "disk" / "check.json").is_file()
