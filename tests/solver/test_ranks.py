"""Several processes as one: shares of a batch, and trainings under torchrun with gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detpipe.solver.ranks import LostRankError, Ranks, joined_ranks
from detpipe.solver.snapshot import find_snapshots
from detpipe.solver.training_log import read_log

ROOT = Path(__file__).resolve().parents[2]


def test_the_parts_are_the_batch() -> None:
    batch = list(range(12))
    parts = [batch[Ranks(rank, 3).part(12)] for rank in range(3)]
    assert parts == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert batch[Ranks().part(12)] == batch
    assert batch[Ranks(1, 3).part(0)] == []


def test_unequal_parts_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"solver\.batch_size: expected a multiple of 3, the number of processes, got 8"
    ):
        Ranks(0, 3).part(8)


def test_one_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_ranks() as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.is_first
        assert ranks.any(True)
        assert not ranks.any(False)
        assert ranks.mean({"loss": torch.tensor(2.0)}) == {"loss": torch.tensor(2.0)}
        module = torch.nn.Linear(1, 1)
        assert ranks.parallel(module) is module


def test_a_lost_peer_is_an_error_of_its_own() -> None:
    def meet(ranks: Ranks, words: str) -> None:
        with ranks.translating_errors():
            raise RuntimeError(words)

    with pytest.raises(LostRankError, match=r"rank 0 of 2: another process .* \(Connection closed.*same command again"):
        meet(Ranks(0, 2), "Connection closed by peer [127.0.0.1]:1\nmore")
    for ranks, words in ((Ranks(0, 1), "Connection closed"), (Ranks(0, 2), "shapes differ")):
        with pytest.raises(RuntimeError, match=words) as caught:
            meet(ranks, words)
        assert type(caught.value) is RuntimeError


def train(processes: int, *words: Any) -> subprocess.CompletedProcess[str]:
    """One training by torchrun, or in one process of its own."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*(launch if processes > 1 else [sys.executable]), "-m", "tests.solver.one_of_the_ranks", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def numbers(folder: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in ("examples_per_second", "waiting")}
        for row in read_log(folder / "log.jsonl")
    ]


@pytest.mark.slow
def test_two_ranks_train_as_one_process(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, processes in ((one, 1), (two, 2)):
        done = train(processes, folder)
        assert done.returncode == 0, done.stderr
    rows = numbers(one)
    assert [row["iteration"] for row in rows] == list(range(1, 13))
    for row, other in zip(rows, numbers(two), strict=True):
        # The largest error of a batch is no mean over its parts.
        assert {k: v for k, v in other.items() if k != "largest"} == pytest.approx(
            {k: v for k, v in row.items() if k != "largest"}, abs=1e-5
        )
    states = [torch.load(path, weights_only=True) for path in (one / "rank_0.pt", two / "rank_0.pt", two / "rank_1.pt")]
    torch.testing.assert_close(states[1], states[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(states[2], states[1], rtol=0, atol=0)
    assert sorted(path.name for path in (two / "snapshots").iterdir()) == [
        "best.pt",
        "iter_0000005.pt",
        "iter_0000010.pt",
    ]


@pytest.mark.slow
def test_a_killed_rank_stops_the_run_with_its_name_and_a_restart_goes_on(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(2, whole).returncode == 0
    broken = train(2, killed, 16)  # in iteration 9, of two batches each
    assert broken.returncode != 0
    assert "rank      : 1 (local_rank: 1)" in broken.stderr
    assert "Signal 9 (SIGKILL)" in broken.stderr
    assert [path.name for path in find_snapshots(killed / "snapshots")] == ["iter_0000005.pt"]
    again = train(2, killed)
    assert again.returncode == 0, again.stderr
    assert numbers(killed) == numbers(whole)
    assert (killed / "rank_0.pt").read_bytes() == (whole / "rank_0.pt").read_bytes()
