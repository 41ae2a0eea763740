"""The processes of a training on several devices, as torchrun starts them: one rank each, the first of which writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

OF_COMMUNICATION = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "timed out", "gloo", "NCCL")
"""Words of the errors that torch.distributed raises where a peer is gone; it has no class of its own for them."""


class LostRankError(RuntimeError):
    """Another process of the training is gone."""


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is: `rank` of 0 .. size - 1. The default is a training in one process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes logs, snapshots and what comes out."""
        return self.rank == 0

    def part(self, count: int, setting: str = "solver.batch_size") -> slice:
        """This rank's places of a batch of `count`: every size-th, so that each rank has its share of each kind.

        setting: which says `count`. Raises ValueError where the parts would not be equal: a mean of means is then no
        mean.
        """
        if count % self.size:
            raise ValueError(f"{setting}: expected a multiple of {self.size}, the number of processes, got {count}")
        return slice(self.rank, count, self.size)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars, averaged over the ranks; all ranks must ask at the same time. None give none."""
        if self.size == 1 or not values:
            return dict(values)
        together = torch.stack([value.detach().double() for value in values.values()])
        with self.noticing_losses():
            dist.all_reduce(together)
        return {name: (together[i] / self.size).to(value.dtype) for i, (name, value) in enumerate(values.items())}

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; all ranks must ask at the same time."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)], device=_communicating_device())
        with self.noticing_losses():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def wait(self) -> None:
        """Go on when all ranks are here."""
        self.any(False)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module with gradients that are averaged over the ranks while the backward pass goes on.

        Some of its parameters may get none: layers above the last map that is looked at, or maps without priors.
        """
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    @contextlib.contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Within the block an error of communication becomes LostRankError, which says what to do; others pass."""
        try:
            yield
        except RuntimeError as error:
            words = str(error)
            if self.size == 1 or not any(word in words for word in OF_COMMUNICATION):
                raise
            raise LostRankError(
                f"rank {self.rank} of {self.size}: another process of this training is gone "
                f"({words.strip().splitlines()[0][:200]}); torchrun's report names it. "
                "The same command goes on from the last snapshot"
            ) from error


def _communicating_device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun started, joined for the block; one alone where it did not (no WORLD_SIZE).

    NCCL where there is CUDA, gloo on CPUs. A process that has joined already keeps its group.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
