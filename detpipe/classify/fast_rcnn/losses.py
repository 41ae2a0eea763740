"""All losses of the regions of a batch, for Fast R-CNN alone and together with MultiBox."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detpipe.classify.crops.train import region_losses
from detpipe.classify.fast_rcnn.batches import RegionBatch
from detpipe.classify.fast_rcnn.best_box import with_best_box
from detpipe.classify.fast_rcnn.denoising import predicted, with_denoising
from detpipe.classify.fast_rcnn.second_pass import moved_regions
from detpipe.classify.labeling import SamplingConfig
from detpipe.heads.fast_rcnn.network import FastRcnn, RegionOutputs
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.network.device import autocast


def batch_losses(
    network: FastRcnn,
    maps: Sequence[Tensor],
    batch: RegionBatch,
    head: FastRcnnConfig,
    sampling: SamplingConfig,
    *,
    bf16: bool,
) -> dict[str, Tensor]:
    """The losses of a batch by name; "loss" is the one to minimise.

    maps: the feature maps of its images. It has "class_loss", "box_loss" with box regression, "best_loss" and
    "denoise_loss" with attention, "refine_loss" with `refine_weight`, and "accuracy".
    """
    device = maps[0].device
    regions = torch.from_numpy(batch.regions).to(device)
    with autocast(device, bf16):
        outputs, of_queries = predicted(network, maps, regions, batch.queries)

    def of(labelled: RegionBatch, found: RegionOutputs) -> dict[str, Tensor]:
        return region_losses(
            network.box_regressor,
            found.logits,
            found.deltas,
            labelled,
            head,
            device,
            fg_share=sampling.fg_share,
            foreground_weight=head.foreground_weight,
        )

    losses = with_best_box(of(batch, outputs), outputs, regions, batch.truths, batch.sizes, head)
    losses = with_denoising(losses, network, of_queries, batch.queries, head)
    if not head.refine_weight or outputs.deltas is None:
        return losses
    moved = moved_regions(batch, outputs, sampling)
    with autocast(device, bf16):
        again, _ = predicted(network, maps, torch.from_numpy(moved.regions).to(device), None)
    # A region counts as much as in the first pass, whose losses are means over more regions.
    loss = of(moved, again)["loss"] * (len(moved.labels) / max(len(batch.labels), 1))
    return {**losses, "loss": losses["loss"] + head.refine_weight * loss, "refine_loss": loss}
