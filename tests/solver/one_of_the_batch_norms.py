"""One process of a training with batch norms that learn, as torchrun starts it: FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from detpipe.solver.ranks import joined_ranks
from detpipe.solver.sync_batch_norm import synchronise_batch_norms

ITERATIONS, BATCH = 8, 12


def network() -> nn.Module:
    torch.manual_seed(0)
    norms = (nn.BatchNorm2d(4), nn.BatchNorm2d(3, momentum=None))
    layers = (nn.Conv2d(2, 4, 3), norms[0], nn.ReLU(), nn.Conv2d(4, 3, 3), norms[1], nn.Flatten(), nn.LazyLinear(2))
    net = nn.Sequential(*layers)
    net(torch.zeros(2, 2, 7, 7))
    return net.train()


def batch(number: int) -> tuple[Tensor, Tensor]:
    """Images whose brightness rises along the batch, so that a part's statistics are not the whole's."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(BATCH, 2, 7, 7, generator=generator) + torch.arange(BATCH)[:, None, None, None]
    return x, torch.arange(BATCH) % 2


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        net = network()
        if ranks.size > 1:
            synchronise_batch_norms(net)
        step, part = ranks.parallel(net), ranks.part(BATCH)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for number in range(ITERATIONS):
            x, labels = batch(number)
            loss = nn.functional.cross_entropy(step(x[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(ranks.mean({"loss": loss})["loss"].detach())
        torch.save({"losses": torch.stack(losses), "model": net.state_dict()}, folder / f"{ranks.size}_{ranks.rank}.pt")


if __name__ == "__main__":
    main()
