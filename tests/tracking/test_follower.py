"""The process that follows a log: nothing twice, nothing stopped, nothing lost when the command is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from detpipe.storage.manifest import Artefact
from detpipe.tracking import follower
from detpipe.tracking.follower import Order, follow, following
from detpipe.tracking.tensorboard import TensorBoard
from detpipe.tracking.tracker import NoTracker
from tests.tracking.test_tracker import scalars

pytest.importorskip("tensorboard")


def train(run: Path, iterations: range, seed: int = 0) -> None:
    """A finished training with a row for each iteration."""
    artefact = Artefact(run / "classifier", stage="train-cls", settings={"seed": seed}, inputs={})
    artefact.path.mkdir(parents=True, exist_ok=True)
    with (artefact.path / "log.jsonl").open("a") as file:
        for number in iterations:
            row = {"iteration": number, "loss": 1 / number, "lr": 0.5, "note": "text", "bad": float("nan")}
            file.write(json.dumps({key: value for key, value in row.items() if key != "bad"}) + "\n")
    artefact.finish(seconds=1.0, summary={})


def order(run: Path, log: str = "classifier/log.jsonl") -> Order:
    return Order("tensorboard", {"folder": None}, str(run), log, {"seed": 0})


def follow_to_the_end(order: Order) -> None:
    over = threading.Event()
    over.set()
    follow(order, over)


def steps(run: Path, name: str = "classifier/loss") -> list[int]:
    return [step for step, _ in scalars(run / "tensorboard")[name]]


def test_rows_are_given_once_however_often_the_command_runs(tmp_path: Path) -> None:
    train(tmp_path, range(1, 4))
    follow_to_the_end(order(tmp_path))
    follow_to_the_end(order(tmp_path))
    train(tmp_path, range(4, 6))
    follow_to_the_end(order(tmp_path))
    found = scalars(tmp_path / "tensorboard")
    assert found["classifier/loss"] == [(1, 1.0), (2, 0.5), (3, 0.3333), (4, 0.25), (5, 0.2)]
    assert set(found) == {"classifier/loss", "classifier/lr"}


def test_rows_that_a_resumed_training_writes_again_are_not_given_again(tmp_path: Path) -> None:
    train(tmp_path, range(1, 6))
    follow_to_the_end(order(tmp_path))
    (tmp_path / "classifier/log.jsonl").unlink()  # resumed from the snapshot of iteration 2
    train(tmp_path, range(1, 8))
    follow_to_the_end(order(tmp_path))
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_another_training_in_the_folder_is_another_run(tmp_path: Path) -> None:
    train(tmp_path, range(1, 3))
    follow_to_the_end(order(tmp_path))
    (tmp_path / "classifier/log.jsonl").unlink()
    train(tmp_path, range(1, 4), seed=1)
    follow_to_the_end(order(tmp_path))
    assert steps(tmp_path) == [1, 2]
    assert [step for step, _ in scalars(tmp_path / "tensorboard_2")["classifier/loss"]] == [1, 2, 3]


def test_metrics_are_given_with_the_run_of_the_training_and_once(tmp_path: Path) -> None:
    train(tmp_path, range(1, 2))
    follow_to_the_end(order(tmp_path))
    for seconds in (1.0, 2.0):
        metrics = {
            "voc10": {"map": 0.75, "per_class": {"ace": 0.75}},
            "coco": {"APs": None},
            "seconds": {"eval": seconds},
        }
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        follow_to_the_end(order(tmp_path, log=""))
    found = scalars(tmp_path / "tensorboard")
    assert found["metrics/voc10/map"] == [(1, 0.75)]
    assert not any("seconds" in name or "APs" in name for name in found)
    assert "classifier/loss" in found


def test_a_run_without_a_log_or_metrics_opens_nothing(tmp_path: Path) -> None:
    follow_to_the_end(order(tmp_path))
    follow_to_the_end(order(tmp_path, log=""))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_starts_a_new_run(tmp_path: Path) -> None:
    train(tmp_path, range(1, 2))
    (tmp_path / follower.RECORD).write_text("{")
    follow_to_the_end(order(tmp_path))
    assert steps(tmp_path) == [1]


def test_the_rows_of_a_block_reach_the_tracker(tmp_path: Path) -> None:
    with following(TensorBoard(), tmp_path, log=tmp_path / "classifier/log.jsonl", config={"seed": 0}):
        train(tmp_path, range(1, 4))
    assert steps(tmp_path) == [1, 2, 3]


def test_without_a_tracker_no_process_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with following(NoTracker(), tmp_path, log=None, config={}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_fails_is_a_warning_with_its_messages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    tracker = TensorBoard(folder=str(occupied))
    with following(tracker, tmp_path, log=tmp_path / "classifier/log.jsonl", config={}):
        train(tmp_path, range(1, 3))
    assert "track=tensorboard: failed" in caplog.text
    assert follower.MESSAGES in caplog.text
    assert "file" in (tmp_path / follower.MESSAGES).read_text()


def test_an_error_of_the_block_is_raised_and_its_rows_are_given(tmp_path: Path) -> None:
    def diverge() -> None:
        with following(TensorBoard(), tmp_path, log=tmp_path / "classifier/log.jsonl", config={}):
            train(tmp_path, range(1, 3))
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        diverge()
    assert steps(tmp_path) == [1, 2]


def test_rows_of_a_killed_command_are_given(tmp_path: Path) -> None:
    script = f"""
import os, signal, time
from pathlib import Path
from tests.tracking.test_follower import following, train, TensorBoard
run = Path({str(tmp_path)!r})
with following(TensorBoard(), run, log=run / "classifier/log.jsonl", config={{}}):
    train(run, range(1, 4))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    for _ in range(300):
        record = tmp_path / follower.RECORD
        if record.is_file() and json.loads(record.read_text())["steps"] == {"classifier": 3}:
            break
        time.sleep(0.1)
    time.sleep(1)  # the last row is written after the record
    assert steps(tmp_path) == [1, 2, 3]
