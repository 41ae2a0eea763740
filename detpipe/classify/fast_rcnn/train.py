"""Training of Fast R-CNN from images and proposals, without cropping (Girshick 2015, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from detpipe.classify.crops.train import validation_numbers
from detpipe.classify.fast_rcnn.batches import (
    HierarchicalSampling,
    ImageViews,
    ProposedImage,
    RegionBatch,
    joined,
    moved,
    read_scaled,
)
from detpipe.classify.fast_rcnn.losses import batch_losses
from detpipe.classify.labeling import SamplingConfig, sample_regions
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.network.batch_order import evenly_spread
from detpipe.network.box_views import learned
from detpipe.network.device import autocast
from detpipe.network.scaled_image import Scaling, mean_colour
from detpipe.network.train_network import RunContext, train_network
from detpipe.tiles import fullest_window

VALIDATION_IMAGES = 32
"""Validation uses at most this many images, evenly spaced, to keep its share of the training time small."""


def train_fast_rcnn(
    network: FastRcnn,
    train: Sequence[ProposedImage],
    val: Sequence[ProposedImage],
    *,
    head: FastRcnnConfig,
    sampling: SamplingConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to `context.folder`.

    With several processes (`context.ranks`), each takes its own images of every batch.

    Raises ValueError for no images, Interrupted after a signal.
    """
    solver, seed, device, bf16 = context.solver, context.seed, context.device, context.bf16
    fill = mean_colour(network.backbone.spec)
    make_batch = HierarchicalSampling(
        train,
        sampling,
        ImageViews(scales=tuple(head.scales), max_side=head.max_side, flip=head.flip, fill=fill, tiles=head.tiles),
        images_per_batch=head.images_per_batch,
        batch_size=solver.batch_size,
        seed=seed,
        part=context.ranks.part(head.images_per_batch, "head.images_per_batch"),
        denoise=head.denoise,
    )

    def loss(batch: RegionBatch) -> Mapping[str, Tensor]:
        with autocast(device, bf16):
            maps = network.feature_maps(torch.from_numpy(batch.images).to(device))
        return batch_losses(network, maps, batch, head, sampling, bf16=bf16)

    images = VALIDATION_IMAGES if solver.test_iter is None else solver.test_iter * head.images_per_batch
    return train_network(
        network,
        new_modules=network.new_modules,
        examples=len(train) * max(solver.batch_size // head.images_per_batch, 1),
        data=f"{len(train):,} images",
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, head, sampling, device, bf16, images, seed) if val else None,
        learning=head,
        context=context,
    )


def forward(network: FastRcnn, batch: RegionBatch, device: torch.device, bf16: bool) -> tuple[Tensor, Tensor | None]:
    """Logits and deltas of the batch's regions."""
    images, regions = torch.from_numpy(batch.images).to(device), torch.from_numpy(batch.regions).to(device)
    with autocast(device, bf16):
        logits, deltas = network(images, regions)
    return logits, deltas


def validation(
    network: FastRcnn,
    val: Sequence[ProposedImage],
    head: FastRcnnConfig,
    sampling: SamplingConfig,
    device: torch.device,
    bf16: bool,
    images: int,
    seed: int,
) -> Callable[[], dict[str, float]]:
    """A function that returns val_loss, val_accuracy and val_fg_accuracy (of foreground regions only) of `network`.

    It uses at most `images` images, evenly spaced, at the largest scale, and always the same regions. With tiles, it
    uses the tile with most objects of each image.
    """
    indices = evenly_spread(len(val), images)
    without_jitter = replace(sampling, jittered=0)

    def batch_of(index: int) -> RegionBatch:
        image = val[index]
        if head.tiles.used:
            image = image.part(fullest_window(image.image_size, learned(image.truth), head.tiles))
        scaling = Scaling.to_side(image.image_size, head.scales[-1], head.max_side)
        generator = np.random.default_rng((seed, index))
        regions = sample_regions(image.proposals, image.truth, image.image_size, without_jitter, generator)
        return joined([read_scaled(image, scaling)], [moved(regions, scaling)], (0, 0, 0))

    def validate() -> dict[str, float]:
        logits, labels = [], []
        with torch.inference_mode():
            for index in indices:
                batch = batch_of(int(index))
                logits.append(forward(network, batch, device, bf16)[0].float().cpu())
                labels.append(torch.from_numpy(batch.labels))
        return validation_numbers(torch.cat(logits), torch.cat(labels))

    return validate
