"""One process of a training on the linear problem, as torchrun starts it: FOLDER [BATCH AT WHICH RANK 1 IS KILLED]."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from detpipe.solver.ranks import joined_ranks
from detpipe.solver.solver_config import Optimizer
from tests.solver.least_squares import Batch, Training, doubles, linear, solver_config

SETTINGS = solver_config(
    type=Optimizer.caffe_sgd,
    max_iter=12,
    snapshot=5,
    display=1,
    iter_size=2,
    clip_gradients=1.0,
    snapshot_best="val_loss",
)


def main() -> None:
    folder = Path(sys.argv[1])
    kill_at = int(sys.argv[2]) if len(sys.argv) > 2 else -1
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        part = ranks.part(8)

        def make_batch(number: int) -> Batch:
            x, t = doubles(number)
            return (x, t) if number == 10_000 else (x[part], t[part])

        def kill(number: int) -> None:
            if number == kill_at and ranks.rank == ranks.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)

        training = Training(folder, linear(), SETTINGS, make_batch=make_batch, on_batch=kill, ranks=ranks)
        training.run()
        torch.save(training.network.state_dict(), folder / f"rank_{ranks.rank}.pt")


if __name__ == "__main__":
    main()
