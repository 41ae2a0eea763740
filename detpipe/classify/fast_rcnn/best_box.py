"""The loss of the logit "this region is the best box of its object" on a batch of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detpipe.heads.fast_rcnn.best_box import best_box_loss, best_boxes_of
from detpipe.heads.fast_rcnn.network import RegionOutputs
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.structures import GroundTruth


def with_best_box(
    losses: Mapping[str, Tensor],
    outputs: RegionOutputs,
    regions: Tensor,
    truths: Sequence[GroundTruth],
    sizes: Sequence[tuple[int, int]],
    head: FastRcnnConfig,
) -> dict[str, Tensor]:
    """Add "best_loss" to the losses, and head.best_weight times it to "loss". Without attention nothing is added.

    regions: (R, 5) of the batch. truths, sizes: objects in pixels of the input and (height, width) of each image.
    Difficult objects and crowds are not matched.
    """
    if outputs.best is None:
        return dict(losses)
    targets = torch.zeros(len(regions), device=regions.device)
    for index, (truth, size) in enumerate(zip(truths, sizes, strict=True)):
        rows = torch.nonzero(regions[:, 0] == index).squeeze(1)
        usable = truth[~(truth.difficult | truth.crowd)]
        targets[rows] = best_boxes_of(
            outputs.of(rows),
            regions[rows, 1:],
            torch.from_numpy(usable.labels).to(regions.device),
            torch.from_numpy(usable.boxes).to(regions.device),
            size,
        )
    loss = best_box_loss(outputs.best, targets)
    return {**losses, "loss": losses["loss"] + head.best_weight * loss, "best_loss": loss}
