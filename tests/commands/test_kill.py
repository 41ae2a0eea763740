"""Kills and signals at any moment: the same command goes on, and ends with the bytes of an unbroken run."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from detpipe.proposals.proposals_db import ProposalsReader
from detpipe.storage.lmdb_store import LmdbReader
from detpipe.storage.manifest import manifest_path
from tests import drawn
from tests.command_line import Outcome, detpipe, start


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds. Fails where the process ends before it."""
    until = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"the moment never came: {out}{err}")
        time.sleep(0.002)


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> Outcome:
    """The process after a signal."""
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


def run_arguments(voc_root: Path, folder: Path) -> list[str]:
    return ["run", *drawn.voc(voc_root), *drawn.settings("run", "solver.snapshot=1"), f"run_dir={folder}"]


def records(database: Path) -> dict[bytes, bytes]:
    with LmdbReader(database) as reader:
        return dict(reader.items())


def assert_same_end(folder: Path, unbroken: Path) -> None:
    for name in ("detections.json", "recall.json", "classifier/weights.safetensors", "classifier/classifier.json"):
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes(), name
    # Their pages depend on where transactions ended; what is in them does not.
    for name in ("proposals.lmdb", "crops.lmdb", "crops_val.lmdb"):
        assert records(folder / name) == records(unbroken / name), name
    assert not (folder / "detections.lmdb").exists()


@pytest.mark.slow  # three commands start: 46 s of CPU time; the other tests here kill cheaper ones
def test_a_run_killed_in_three_stages(voc_root: Path, finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = run_arguments(voc_root, folder)
    moments = ("proposals.lmdb/data.mdb", "classifier/snapshots/iter_0000002.pt", "detections.lmdb/data.mdb")
    for moment in moments:
        process = start(*arguments)
        wait_for((folder / moment).exists, process)
        assert stopped(process, signal.SIGKILL).status == -signal.SIGKILL
        assert not (folder / "metrics.json").exists()
    outcome = detpipe(*arguments)
    assert outcome.status == 0, outcome.err
    assert_same_end(folder, finished_run)


STAGES = {
    "propose": ("proposals.lmdb", "recall.json"),
    "crop": ("crops.lmdb", "crops_val.lmdb"),
    "train-cls": ("classifier",),
    "detect": ("detections.json",),
}
"""The artefacts of each stage, in the order of the flow."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_at_random_moments(stage: str, voc_root: Path, finished_run: Path, tmp_path: Path) -> None:
    """Twenty moments in each of the four stages: clear it and what follows, kill, restart, compare."""
    folder = drawn.copy(finished_run, tmp_path / "run")
    arguments = run_arguments(voc_root, folder)
    moments = random.Random(f"kill {stage}")
    killed = 0
    for _ in range(20):
        for later in list(STAGES)[list(STAGES).index(stage) :]:
            for name in STAGES[later]:
                manifest_path(folder / name).unlink(missing_ok=True)
                shutil.rmtree(folder / name, ignore_errors=True)
                (folder / name).unlink(missing_ok=True)
        (folder / "check.json").unlink(missing_ok=True)
        process = start(*arguments)
        wait_for((folder / "check.json").exists, process)  # the gate: the stages come next
        time.sleep(moments.uniform(0, 1.5))
        killed += stopped(process, signal.SIGKILL).status == -signal.SIGKILL
        outcome = detpipe(*arguments)
        assert outcome.status == 0, outcome.err
        assert_same_end(folder, finished_run)
    assert killed >= 10, "too few of the kills met a run that was still going"


def test_an_interrupted_training_goes_on(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    folder = drawn.copy(finished_run, tmp_path / "run")
    shutil.rmtree(folder / "classifier")
    words = drawn.settings("train-cls", "solver.snapshot=1")
    arguments = ["train-cls", *drawn.voc(voc_root), *words, f"run_dir={folder}"]
    process = start(*arguments)
    wait_for((folder / "classifier/snapshots/iter_0000001.pt").exists, process)
    outcome = stopped(process, signal.SIGINT)
    assert outcome.status == 130, outcome.err
    snapshots = sorted((folder / "classifier/snapshots").iterdir())
    assert f"detpipe train-cls: stopped: SIGINT: snapshot written to {snapshots[-1]}" in outcome.err
    assert "Traceback" not in outcome.err
    again = detpipe(*arguments)
    assert again.status == 0, again.err
    assert f"resumed from iteration 2 of {snapshots[-1]}" in again.err
    assert_same_end(folder, finished_run)


def test_interrupted_proposals_go_on(voc_root: Path, tmp_path: Path) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    # Slow enough to be met in the middle.
    slow = ["proposals.preset=ijcv_quality", "proposals.max_side=90", "proposals.max_proposals=50"]
    arguments = ["propose", *drawn.voc(voc_root), *drawn.settings("propose", *slow)]
    process = start(*arguments, f"run_dir={folder}")
    database = folder / "proposals.lmdb"
    # The first transaction, of eight records: the work is well under way, and six images are left.
    wait_for(lambda: (database / "data.mdb").exists() and (database / "data.mdb").stat().st_size > 20_000, process)
    outcome = stopped(process, signal.SIGINT)
    assert outcome.status == 130, outcome.err
    assert f"detpipe propose: stopped: what is finished is in {database}" in outcome.err
    assert "Traceback" not in outcome.err
    with ProposalsReader(database) as reader:
        done = len(reader)
    assert 8 <= done < 14
    again = detpipe(*arguments, f"run_dir={folder}")
    assert again.status == 0, again.err
    assert f"{done} of 14 images already done" in again.err
    assert detpipe(*arguments, f"run_dir={whole}").status == 0
    assert records(database) == records(whole / "proposals.lmdb")
    assert (folder / "recall.json").read_bytes() == (whole / "recall.json").read_bytes()
