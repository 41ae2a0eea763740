"""Training from Python: it does what `detpipe run` does, in scripts, threads and notebooks."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detpipe
from detpipe import load_dataset, train
from detpipe.console import shown_log
from detpipe.datasets.exif_boxes import ExifBoxes
from detpipe.datasets.voc import VocSource
from detpipe.runs.run_folder import RunFolder
from detpipe.training import _dataset_words, _words
from tests import command_line, drawn

SMALL: dict[str, Any] = dict(word.split("=", 1) for word in drawn.settings("run"))
"""The settings of the fixture `finished_run`."""


def test_it_makes_the_files_of_the_command(
    finished_run: Path, voc_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("detpipe")
    before = (log.level, log.propagate, log.handlers[:])
    dataset = load_dataset("voc", "train", root=voc_root)
    with ThreadPoolExecutor(1) as pool:  # as in a notebook or a server, whose work is not in the main thread
        result = pool.submit(train, dataset, run_dir=tmp_path / "run", **SMALL).result()
    for name in ("classifier/weights.safetensors", "detections.json", "proposals.lmdb/data.mdb", "recall.json"):
        assert (result.run_dir / name).read_bytes() == (finished_run / name).read_bytes(), name
    assert result.detector.classes == dataset.classes
    assert result.report.is_file()
    assert "VOC10" in capsys.readouterr().out
    assert "eval: " in (tmp_path / "run" / "detpipe.log").read_text()
    assert (log.level, log.propagate, log.handlers) == before


def test_what_is_done_is_not_done_again(run_copy: Path, voc_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = RunFolder(run_copy).classifier / "weights.safetensors"
    made = weights.stat().st_mtime_ns
    result = train(voc_root, run_dir=run_copy, **SMALL)  # the format is found
    assert "dataset=voc" in capsys.readouterr().err
    assert weights.stat().st_mtime_ns == made
    kept = json.loads((run_copy / "metrics.json").read_text())
    measured = result.metrics.to_json(kept["seconds"])
    assert measured == kept
    assert str(result).startswith(str(result.metrics))
    assert "report.html" in result._repr_html_()
    assert repr(result) == f"TrainingResult({run_copy})"
    given = (run_copy / ".hydra" / "run" / "overrides.yaml").read_text()
    assert f'run_dir="{run_copy}"' in given
    outcome = command_line.detpipe("run", *drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert weights.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": {"max_iters": 3}},
        {"solver.max_iter": -1},
        {"experiment": "fast_rcn"},
        {"head": "svn"},
        {"seed": "one"},
        {"device": "tpu"},
    ],
)
def test_errors_are_exceptions_with_the_sentence_of_the_command(
    settings: dict[str, Any], voc_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r".+") as raised:
        train(VocSource(root=str(voc_root)), run_dir=tmp_path / "run", **settings)
    words = [f"run_dir={tmp_path / 'run'}", *_words("", settings)]
    outcome = command_line.detpipe("run", *drawn.voc(voc_root), *words)
    assert outcome.err == f"detpipe run: {raised.value}\n"
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_at_once_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match="nowhere"):
        train(VocSource(root=str(tmp_path / "nowhere")), run_dir=tmp_path / "runs" / "a")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"head": "svm", "seed": 3}, ["head=svm", "seed=3"]),
        ({"solver": {"max_iter": np.int64(9), "base_lr": 1e-3}}, ["solver.max_iter=9", "solver.base_lr=0.001"]),
        ({"solver.lr_mult": {"fc": 0.5}}, ["solver.lr_mult={fc:0.5}"]),
        ({"solver": {"lr_mult": {}}}, ["solver.lr_mult={}"]),
        ({"overwrite": True, "sampling": {"a": None}}, ["overwrite=true", "sampling.a=null"]),
        ({"proposals": {"sources": ["a b", Path("c")]}}, ['proposals.sources=["a b","c"]']),
        ({"dataset.exif_boxes": ExifBoxes.raw}, ["dataset.exif_boxes=raw"]),
    ],
)
def test_settings_become_words(settings: dict[str, Any], words: list[str]) -> None:
    assert list(_words("", settings)) == words


def test_an_object_is_no_setting() -> None:
    with pytest.raises(TypeError, match="object"):
        list(_words("", {"seed": object()}))


def test_a_data_set_becomes_words(voc_root: Path) -> None:
    source = VocSource(root=str(voc_root), classes=["a b"], max_bad=0.5)
    words = ["dataset=voc", 'dataset.classes=["a b"]', "dataset.max_bad=0.5", f"dataset.root={voc_root}"]
    assert sorted(_dataset_words(source)) == sorted(words)
    dataset = load_dataset("voc", root=voc_root)
    assert _dataset_words(dataset) == ["dataset=voc", f"dataset.root={voc_root}"]
    with pytest.raises(ValueError, match="part"):
        _dataset_words(dataset[:2])
    with pytest.raises(TypeError, match="got list"):
        _dataset_words([voc_root])


def test_the_log_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("detpipe.example")
    for verbose in (False, True):
        with shown_log(verbose=verbose, log_file=tmp_path / "log"):
            log.info("a line")
            log.warning("a warning")
        shown = capsys.readouterr().err
        assert shown.count("a warning") == 1
        assert ("a line" in shown) == verbose
    assert (tmp_path / "log").read_text().count("a line") == 2


SCRIPT = """
import sys
from detpipe import train
from detpipe.datasets.voc import VocSource
print("begun")
result = train(VocSource(root=sys.argv[1]), run_dir="run", **{settings!r})
print(result.metrics.voc10.map)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_ends(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(settings={**SMALL, "workers": 2}))
    done = subprocess.run(
        [sys.executable, "script.py", str(voc_root)], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begun") == 1
    assert "__main__" in done.stderr
    found = (tmp_path / "run" / "detections.json").read_bytes()
    assert found == (finished_run / "detections.json").read_bytes()


HYDRA = """
import hydra
from hydra.core.global_hydra import GlobalHydra

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    from detpipe import train
    from detpipe.datasets.voc import VocSource

    for _ in range(2):
        try:
            train(VocSource(root="nowhere"), solver={"max_iters": 3})  # Hydra itself refuses it
        except ValueError as error:
            print("error:", error)
    print("initialised:", GlobalHydra.instance().is_initialized())

main()
"""


def test_a_program_of_hydra_can_train(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(HYDRA)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.count("error: solver.max_iters: ") == 2, done.stderr
    assert "initialised: True" in done.stdout


def test_it_is_public() -> None:
    assert detpipe.train is train
