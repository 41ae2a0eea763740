"""Snapshots: whole or not at all, the newest are kept, and what is none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detpipe.solver.snapshot import (
    SnapshotError,
    best_path,
    drop_snapshots_after,
    find_snapshots,
    iteration_of,
    load_snapshot,
    save_snapshot,
    snapshot_path,
)


def state(iteration: int) -> dict[str, Any]:
    return {"iteration": iteration, "key": "k", "model": {"w": torch.arange(3.0)}, "optimizer": {"betas": (0.9, 0.1)}}


def test_round_trip(tmp_path: Path) -> None:
    path = save_snapshot(tmp_path / "snapshots", 12, state(12), keep=1)
    assert path == snapshot_path(tmp_path / "snapshots", 12)
    back = load_snapshot(path)
    assert torch.equal(back["model"].pop("w"), torch.arange(3.0))
    assert back == {"iteration": 12, "key": "k", "model": {}, "optimizer": {"betas": (0.9, 0.1)}}


def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    for iteration in (5, 10_000_000, 99, 9_999_999):
        save_snapshot(tmp_path, iteration, state(iteration), keep=3)
    assert find_snapshots(tmp_path) == [snapshot_path(tmp_path, n) for n in (99, 9_999_999, 10_000_000)]


def test_other_files_are_no_snapshots(tmp_path: Path) -> None:
    for name in ("iter_0000001.pt.part", ".iter_0000002.pt.x.part", "iter_.pt", "iter_best.pt", "notes.txt"):
        (tmp_path / name).touch()
    assert find_snapshots(tmp_path) == []
    assert find_snapshots(tmp_path / "missing") == []


def test_a_failed_write_leaves_the_one_before(tmp_path: Path) -> None:
    save_snapshot(tmp_path, 1, state(1), keep=1)
    with pytest.raises(Exception, match="pickle"):
        save_snapshot(tmp_path, 2, {"iteration": 2, "bad": lambda: None}, keep=1)
    assert list(tmp_path.iterdir()) == [snapshot_path(tmp_path, 1)]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "another file", "a list"])
def test_a_broken_one_is_named(tmp_path: Path, damage: str) -> None:
    path = save_snapshot(tmp_path, 1, state(1), keep=1)
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("no snapshot")
        case "cut":
            path.write_bytes(path.read_bytes()[:-50])
        case "another file":
            torch.save({"weights": torch.zeros(1)}, path)
        case "a list":
            torch.save([1, 2], path)
    with pytest.raises(SnapshotError, match=r"iter_0000001\.pt: expected a snapshot.*delete it"):
        load_snapshot(path)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def test_a_pickle_from_outside_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"iteration": Evil()}, tmp_path / "iter_0000001.pt")
    with pytest.raises(SnapshotError):
        load_snapshot(tmp_path / "iter_0000001.pt")
    assert not (tmp_path / "evil").exists()


def test_names_with_a_prefix(tmp_path: Path) -> None:
    for iteration, prefix in ((3, "examples/mnist/lenet"), (2, ""), (10, "a_b")):
        save_snapshot(tmp_path, iteration, state(iteration), keep=9, prefix=prefix)
    torch.save({}, best_path(tmp_path, "examples/mnist/lenet"))
    names = [path.name for path in find_snapshots(tmp_path)]
    assert names == ["iter_0000002.pt", "lenet_iter_0000003.pt", "a_b_iter_0000010.pt"]
    assert [iteration_of(path) for path in find_snapshots(tmp_path)] == [2, 3, 10]
    assert best_path(tmp_path).name == "best.pt"
    with pytest.raises(ValueError, match=r"lenet_best\.pt: expected the name of a snapshot"):
        iteration_of(best_path(tmp_path, "lenet"))


def test_later_ones_are_dropped(tmp_path: Path) -> None:
    for iteration in (1, 2, 3):
        save_snapshot(tmp_path, iteration, state(iteration), keep=9)
    drop_snapshots_after(tmp_path, 2)
    assert [iteration_of(path) for path in find_snapshots(tmp_path)] == [1, 2]
    drop_snapshots_after(tmp_path / "missing", 0)
