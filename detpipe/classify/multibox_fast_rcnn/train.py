"""Joint training of MultiBox and Fast R-CNN from annotated images: the network learns to propose, and its current
proposals are the training regions of the classifier (approximate joint training, Ren et al. 2015, "Faster R-CNN",
section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from detpipe.classify.crops.train import validation_numbers
from detpipe.classify.fast_rcnn import denoising
from detpipe.classify.fast_rcnn.batches import RegionBatch
from detpipe.classify.fast_rcnn.losses import batch_losses
from detpipe.classify.labeling import SamplingConfig, sample_regions
from detpipe.datasets.image_file import read_image
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox.loss import Targets, multibox_loss
from detpipe.heads.multibox.network import Output
from detpipe.heads.multibox.train import uncalibrated_start
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.annotated_batches import AnnotatedBatch, AnnotatedBatches, AnnotatedImage, padded
from detpipe.network.batch_order import evenly_spread, image_generator
from detpipe.network.box_views import BoxViews
from detpipe.network.device import autocast
from detpipe.network.scaled_image import mean_colour
from detpipe.network.train_network import RunContext, train_network

VALIDATION_IMAGES = 32
"""Validation uses at most this many images, evenly spaced, to keep its share of the training time small."""


def train_multibox_fast_rcnn(
    network: MultiBoxFastRcnn,
    train: Sequence[AnnotatedImage],
    val: Sequence[AnnotatedImage],
    *,
    head: MultiBoxFastRcnnConfig,
    sampling: SamplingConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to `context.folder`.

    With several processes (`context.ranks`), each takes its own images of every batch. Training uses uncalibrated
    logits, even if it starts from a calibrated MultiBox.

    Raises ValueError for no images, Interrupted after a signal.
    """
    context = uncalibrated_start(network, network.predictor.calibration, len(train), context)
    solver, seed, device, bf16 = context.solver, context.seed, context.device, context.bf16
    per_image = replace(sampling, regions_per_image=max(solver.batch_size // head.images_per_batch, 1))
    make_batch = AnnotatedBatches(
        train,
        views(head),
        batch_size=head.images_per_batch,
        multiple=multiple(network),
        fill=mean_colour(network.backbone.spec),
        seed=seed,
        part=context.ranks.part(head.images_per_batch, "head.images_per_batch"),
    )

    def loss(batch: AnnotatedBatch) -> Mapping[str, Tensor]:
        with autocast(device, bf16):
            maps = network.feature_maps(torch.from_numpy(batch.images).to(device))
            output = network.predict(maps, (batch.images.shape[1], batch.images.shape[2]))
            regions = sampled(network, output, batch, per_image, head.proposals, region_generators(seed, batch))
        if head.denoise:
            draws = region_generators(seed, batch, denoising.STREAM)
            queries = denoising.denoising_queries(batch.truths, batch.sizes, head.denoise, sampling, draws)
            regions = replace(regions, queries=queries)
        losses = batch_losses(network, maps, regions, head, sampling, bf16=bf16)
        targets = [Targets.of(*one, device) for one in zip(batch.truths, batch.weights, strict=True)]
        multibox_losses = multibox_loss(output, targets, head.multibox)
        named = {name: multibox_losses[name] for name in ("confidence_loss", "location_loss")}
        return {**losses, **named, "loss": losses["loss"] + head.multibox_weight * multibox_losses["loss"]}

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


def views(head: MultiBoxFastRcnnConfig) -> BoxViews:
    """The settings of scaling, cropping, mirroring and colour changes of training images."""
    return BoxViews(
        scales=tuple(head.scales),
        max_side=head.max_side,
        flip=head.flip,
        crop_share=head.crop_share,
        crop_area=head.crop_area,
        colour=head.colour,
        tiles=head.tiles,
    )


def multiple(network: MultiBoxFastRcnn) -> int:
    """The input is padded to multiples of the coarsest map's stride, so that the map's cells divide it evenly."""
    return 2 * network.strides[-1]


REGION_STREAM = 1
"""The random number stream that samples an image's regions; stream 0 draws its augmentation."""


def region_generators(seed: int, batch: AnnotatedBatch, stream: int = REGION_STREAM) -> list[np.random.Generator]:
    """The generator that samples the regions of each image. It depends on (seed, batch, position), not on the rank."""
    return [image_generator(seed, batch.number, position, stream=stream) for position in batch.positions]


def sampled(
    network: MultiBoxFastRcnn,
    output: Output,
    batch: AnnotatedBatch,
    sampling: SamplingConfig,
    proposals: int,
    generators: Sequence[np.random.Generator],
) -> RegionBatch:
    """Sample regions of each image in the batch from the current proposals of the network.

    generators: one for each image.
    """
    chosen = []
    images = zip(batch.sizes, batch.truths, generators, strict=True)
    for index, (image_size, truth, generator) in enumerate(images):
        boxes, _ = network.propose(output, index, image_size, proposals)
        chosen.append(sample_regions(boxes.cpu().numpy(), truth, image_size, sampling, generator))
    rows = np.repeat(np.arange(len(chosen), dtype=np.float32), [len(one) for one in chosen])
    return RegionBatch(
        batch.images,
        np.concatenate([rows[:, None], np.concatenate([one.boxes for one in chosen])], axis=1),
        np.concatenate([one.labels for one in chosen]),
        np.concatenate([one.deltas for one in chosen]),
        truths=batch.truths,
        sizes=batch.sizes,
    )


def validation(
    network: MultiBoxFastRcnn,
    val: Sequence[AnnotatedImage],
    head: MultiBoxFastRcnnConfig,
    sampling: SamplingConfig,
    device: torch.device,
    bf16: bool,
    images: int,
    seed: int,
) -> Callable[[], dict[str, float]]:
    """A function that returns val_loss, val_accuracy and val_fg_accuracy on the regions that the network proposes.

    It uses at most `images` images, evenly spaced, without cropping, at the largest scale.
    """
    indices = evenly_spread(len(val), images)
    without_jitter = replace(sampling, jittered=0)

    def validate() -> dict[str, float]:
        logits, labels = [], []
        for index in map(int, indices):
            pixels, truth = views(head).plain(read_image(val[index].path, val[index].options), val[index].truth)
            pixel_batch, sizes = padded([pixels], multiple(network), mean_colour(network.backbone.spec))
            batch = AnnotatedBatch(pixel_batch, sizes, (truth,), (val[index].weights_of(truth),), index, (0,))
            with torch.inference_mode(), autocast(device, bf16):
                maps = network.feature_maps(torch.from_numpy(pixel_batch).to(device))
                output = network.predict(maps, (pixel_batch.shape[1], pixel_batch.shape[2]))
                regions = sampled(
                    network, output, batch, without_jitter, head.proposals, region_generators(seed, batch)
                )
                places = torch.from_numpy(regions.regions).to(device)
                found, _ = network.classify(network.pool(maps, places), places)
            logits.append(found.float().cpu())
            labels.append(torch.from_numpy(regions.labels))
        return validation_numbers(torch.cat(logits), torch.cat(labels))

    return validate
