"""The first result of a long run with experiment=auto, on drawn data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from unittest import mock

import pytest

from detpipe.commands import first_result
from detpipe.commands.first_result import LONG, make_first
from detpipe.commands.run_budget import first_seconds
from detpipe.commands.run_settings import Run
from detpipe.datasets.source import Split
from detpipe.runs.few_images import FewImages
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe
from tests.test_auto_experiment import CHOSEN, SMALL, few_objects
from tests.test_conf import made

__all__ = ["few_objects"]


def settings(voc_root: Path, folder: Path, *more: str) -> Run:
    return made("run", *drawn.voc(voc_root), f"run_dir={folder}", *CHOSEN, *more)


def write_metrics(config: Run) -> None:
    config.folder.metrics.write_text(json.dumps({"voc10": {"map": 0.5}}))


def test_it_changes_nothing_of_the_run(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_first, without = tmp_path / "with", tmp_path / "without"
    plain = detpipe("run", *drawn.voc(voc_root), *SMALL, f"run_dir={without}", "first_result=false")
    assert (plain.status, "first result" in plain.out) == (0, False), plain.err
    assert not (without / "first_result").exists()
    monkeypatch.setattr(first_result, "LONG", 0.0)
    words = [*drawn.voc(voc_root), *SMALL, f"run_dir={with_first}"]
    done = detpipe("run", *words)
    assert done.status == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith("first result")]
    assert len(lines) == 1
    inner = with_first / "first_result"
    assert f"mAP@0.5 {json.loads((inner / 'metrics.json').read_text())['voc10']['map']:.3f}" in lines[0]
    assert str(inner / "report.html") in lines[0]
    assert (inner / "report.html").is_file()
    for name in ("classifier/weights.safetensors", "detections.json", "proposals.lmdb/data.mdb"):
        assert (with_first / name).read_bytes() == (without / name).read_bytes(), name
    # The run uses selective search, so the proposals were made once.
    assert read_manifest(inner / "proposals.lmdb") == read_manifest(with_first / "proposals.lmdb")
    assert first_seconds(settings(voc_root, with_first)) > 0
    assert "first result" not in detpipe("run", *words).out


@pytest.mark.parametrize("more", [["first_result=false"], ["chosen_recipe=null"], []])
def test_none_for_short_runs_and_without_auto(more: list[str], voc_root: Path, tmp_path: Path) -> None:
    make = mock.Mock()
    make_first(settings(voc_root, tmp_path, *more), make, 2 * LONG if more else LONG)
    make.assert_not_called()
    assert not any(tmp_path.iterdir())


def test_a_killed_one_continues_and_a_finished_one_stays(voc_root: Path, tmp_path: Path) -> None:
    config = settings(voc_root, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        make_first(config, mock.Mock(side_effect=KeyboardInterrupt), 2 * LONG)
    make = mock.Mock(side_effect=write_metrics)
    make_first(config, make, 2 * LONG)
    make_first(config, make, 2 * LONG)
    assert make.call_count == 1
    make_first(settings(voc_root, tmp_path, "overwrite=true"), make, 2 * LONG)
    assert make.call_count == 2
    assert make.call_args.args[0].overwrite


def test_a_trained_run_needs_none(run_copy: Path, voc_root: Path) -> None:
    make = mock.Mock()
    make_first(settings(voc_root, run_copy), make, 2 * LONG)
    make.assert_not_called()


def test_the_run_goes_on_where_it_fails(voc_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_first(settings(voc_root, tmp_path), mock.Mock(side_effect=ValueError("no features")), 2 * LONG)
    assert [(one.levelno, "no features" in one.message) for one in caplog.records][-1] == (logging.WARNING, True)


def test_a_large_data_set_gives_a_part(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_result, "MOST_TRAIN", 6)
    config = settings(voc_root, tmp_path)
    inner = first_result.first_settings(config)
    assert isinstance(inner.data_source, FewImages)
    assert [len(inner.data_source.load(split)) for split in (Split.train, Split.test)] == [6, len(drawn.TEST)]
    monkeypatch.undo()
    assert first_result.first_settings(config).data_source is config.data_source


def test_a_run_that_proposes_itself_shares_nothing(voc_root: Path, tmp_path: Path) -> None:
    words = [*drawn.voc(voc_root), f"run_dir={tmp_path}", "experiment=multibox_fast_rcnn"]
    config = made("run", *words, "chosen_recipe=multibox_fast_rcnn")
    inner = first_result.first_settings(config)
    assert inner.proposals.describe()["max_proposals"] == first_result.REGIONS
    make_first(config, mock.Mock(side_effect=write_metrics), 2 * LONG)
    assert not config.folder.proposals.exists()
