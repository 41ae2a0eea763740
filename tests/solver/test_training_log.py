"""The training log: rows in order, cut back to the snapshot on a resume, and the same rows as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from detpipe.solver.training_log import SmoothedLoss, TrainingLog, TrainingLogError, as_csv, read_log


def test_rows_come_back(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "new", resume_at=0)
    log.append({"iteration": 1, "loss": 0.5})
    log.append({"iteration": 2, "loss": 0.25, "val_loss": 1.0})
    assert read_log(log.path) == [{"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.25, "val_loss": 1.0}]
    rows = list(csv.DictReader(io.StringIO(log.write_csv().read_text())))
    assert rows == [
        {"iteration": "1", "loss": "0.5", "val_loss": ""},
        {"iteration": "2", "loss": "0.25", "val_loss": "1.0"},
    ]


def test_a_resume_cuts_off_what_came_after_its_snapshot(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, resume_at=0)
    for iteration in (10, 20, 30):
        log.append({"iteration": iteration})
    with log.path.open("a") as file:
        file.write('{"iteration": 4')  # as a kill leaves it
    assert [row["iteration"] for row in read_log(log.path)] == [10, 20, 30]
    again = TrainingLog(tmp_path, resume_at=20)
    again.append({"iteration": 30})
    assert [row["iteration"] for row in read_log(again.path)] == [10, 20, 30]


def test_a_new_training_starts_an_empty_log(tmp_path: Path) -> None:
    TrainingLog(tmp_path, resume_at=0).append({"iteration": 5})
    assert read_log(TrainingLog(tmp_path, resume_at=0).path) == []


def test_nothing(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.jsonl") == []
    assert as_csv([]) == ""
    assert TrainingLog(tmp_path, resume_at=0).write_csv().read_text() == ""


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"iteration": "5"}', '{"iteration": true}', '{"iteration": -1}', "[" * 50_000, "\x00"]
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.jsonl").write_text(f'{{"iteration": 1}}\n{line}\n{{"iteration": 3}}\n')
    with pytest.raises(TrainingLogError, match=r"log\.jsonl:2: expected a row"):
        read_log(tmp_path / "log.jsonl")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "log.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TrainingLogError, match=r"expected the log of a training .*got 1099511627776 bytes"):
        read_log(tmp_path / "log.jsonl")


def test_the_mean_of_the_last() -> None:
    smoothed, means = SmoothedLoss(3), []
    for loss in (3.0, 6.0, 9.0, 12.0):
        smoothed.add(loss)
        means.append(smoothed.mean)
    assert means == pytest.approx([3, 4.5, 6, 9])


def test_a_window_is_taken_up_also_by_a_smaller_one() -> None:
    smoothed = SmoothedLoss(2)
    smoothed.load([1.0, 2.0, 4.0])
    assert smoothed.state() == [2.0, 4.0]


def test_no_loss_yet() -> None:
    assert SmoothedLoss(5).state() == []
