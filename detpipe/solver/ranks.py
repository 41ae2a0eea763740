"""The ranks of a distributed training, one process per device, as started by torchrun. Rank 0 writes all files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

OF_COMMUNICATION = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "timed out", "gloo", "NCCL")
"""Texts in the errors that torch.distributed raises if a peer is lost; it has no exception class for them."""


class LostRankError(RuntimeError):
    """Another process of the training was lost."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, 0 .. size - 1, and the number of processes. The default is a single process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes logs, snapshots and results."""
        return self.rank == 0

    def part(self, count: int, setting: str = "solver.batch_size") -> slice:
        """The slice of this rank in a batch of `count`: every size-th example, so that each rank gets a similar mix.

        setting: name of the setting of `count`, for the error. Raises ValueError if the parts would have unequal sizes,
        because the mean over ranks of their means would then be wrong.
        """
        if count % self.size:
            raise ValueError(f"{setting}: expected a multiple of {self.size}, the number of processes, got {count}")
        return slice(self.rank, count, self.size)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Average named scalars over the ranks. All ranks must call it together. No values give an empty dict."""
        if self.size == 1 or not values:
            return dict(values)
        together = torch.stack([value.detach().double() for value in values.values()])
        with self.translating_errors():
            dist.all_reduce(together)
        return {name: (together[i] / self.size).to(value.dtype) for i, (name, value) in enumerate(values.items())}

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank. All ranks must call it together."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)], device=_communicating_device())
        with self.translating_errors():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        self.any(False)

    def parallel(self, module: nn.Module) -> nn.Module:
        """Wrap the module so that its gradients are averaged over the ranks during the backward pass.

        Some parameters may get no gradient: layers after the last feature map that is used, or maps without priors.
        """
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    @contextlib.contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Convert communication errors in the block to LostRankError, which says what to do; other errors pass."""
        try:
            yield
        except RuntimeError as error:
            words = str(error)
            if self.size == 1 or not any(word in words for word in OF_COMMUNICATION):
                raise
            raise LostRankError(
                f"rank {self.rank} of {self.size}: another process of this training was lost "
                f"({words.strip().splitlines()[0][:200]}); torchrun's report names it. "
                "Run the same command again to resume from the last snapshot"
            ) from error


def _communicating_device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the process group of torchrun for the block. Without torchrun (no WORLD_SIZE), a single rank.

    The backend is NCCL with CUDA, else gloo. A process that is already in a group keeps it.
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
