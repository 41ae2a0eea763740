"""Batch norm over several processes: torch's own on one, the whole batch's on two."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from detpipe.solver import sync_batch_norm as module
from detpipe.solver.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norms

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def a_group_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of this process alone, which says that it is two: sums are then this process's own."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    monkeypatch.setattr(module.dist, "get_world_size", lambda: 2)
    yield
    monkeypatch.undo()
    dist.destroy_process_group()


@pytest.mark.usefixtures("a_group_of_one")
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_one_process_is_torchs_batch_norm(momentum: float | None, affine: bool) -> None:
    torch.manual_seed(0)
    wanted = nn.BatchNorm2d(3, momentum=momentum, affine=affine)
    ours = SyncBatchNorm2d(3, momentum=momentum, affine=affine)
    for _ in range(2):
        x = 5 + torch.randn(4, 3, 5, 6)
        x, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        out, wanted_out = ours(x), wanted(other)
        torch.testing.assert_close(out, wanted_out)
        weights = torch.randn_like(out)
        (out * weights).sum().backward()
        (wanted_out * weights).sum().backward()
        torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(ours.state_dict(), wanted.state_dict())
    torch.testing.assert_close(ours.eval()(x), wanted.eval()(x))


@pytest.mark.usefixtures("a_group_of_one")
def test_one_value_a_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="more than one value per channel"):
        SyncBatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


def test_without_processes_it_is_a_plain_one_and_no_images_stay_none() -> None:
    assert SyncBatchNorm2d(3).eval()(torch.zeros(0, 3, 2, 2)).shape == (0, 3, 2, 2)


def test_a_network_keeps_its_parameters_and_names() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    before = dict(net.named_parameters())
    synchronise_batch_norms(net)
    assert type(net[1]) is SyncBatchNorm2d
    assert all(parameter is before[name] for name, parameter in net.named_parameters())


def test_another_kind_is_named() -> None:
    with pytest.raises(ValueError, match="got 0, a BatchNorm1d"):
        synchronise_batch_norms(nn.Sequential(nn.BatchNorm1d(2)))


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    for processes in (1, 2):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if processes == 2 else []
        subprocess.run(
            [sys.executable, *launch, "-m", "tests.solver.one_of_the_batch_norms", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            timeout=120,
        )
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    torch.testing.assert_close(first["losses"], one["losses"], rtol=0, atol=1e-5)
    torch.testing.assert_close(first["model"], one["model"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
