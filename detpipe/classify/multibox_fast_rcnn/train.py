"""Training of MultiBox and Fast R-CNN together, from images and their objects: the network learns to propose while its
own proposals teach it to classify (approximate joint training, Ren et al. 2015, "Faster R-CNN", section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from detpipe.classify.crops.train import region_losses, validation_numbers
from detpipe.classify.fast_rcnn.batches import RegionBatch
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
"""Validation looks at no more than this many images, evenly spread, so that it stays a small part of the training."""


def train_multibox_fast_rcnn(
    network: MultiBoxFastRcnn,
    train: Sequence[AnnotatedImage],
    val: Sequence[AnnotatedImage],
    *,
    head: MultiBoxFastRcnnConfig,
    sampling: SamplingConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to the session's folder.

    Of several processes (session.ranks) each takes its own images of every batch. It learns from logits that were not
    calibrated, also where it starts from a MultiBox that was.

    Raises ValueError for no images, Interrupted after a signal.
    """
    context = uncalibrated_start(network, network.predictor.calibration, len(train), context)
    solver, seed, device, bf16 = context.solver, context.seed, context.device, context.bf16
    each = replace(sampling, regions_per_image=max(solver.batch_size // head.images_per_batch, 1))
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
            regions = sampled(network, output, batch, each, head.proposals, region_generators(seed, batch))
            logits, deltas = network.classify(network.pool(maps, torch.from_numpy(regions.regions).to(device)))
        targets = [Targets.of(*one, device) for one in zip(batch.truths, batch.weights, strict=True)]
        where = multibox_loss(output, targets, head.multibox)
        what = region_losses(network.box_regressor, logits, deltas, regions, head, device)
        named = {name: where[name] for name in ("confidence_loss", "location_loss")}
        return {**what, **named, "loss": what["loss"] + head.multibox_weight * where["loss"]}

    images = VALIDATION_IMAGES if solver.test_iter is None else solver.test_iter * head.images_per_batch
    return train_network(
        network,
        new_modules=network.new_modules,
        examples=len(train) * max(solver.batch_size // head.images_per_batch, 1),
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, head, sampling, device, bf16, images, seed) if val else None,
        learning=head,
        context=context,
    )


def views(head: MultiBoxFastRcnnConfig) -> BoxViews:
    """How training images are shown."""
    return BoxViews(
        scales=tuple(head.scales),
        max_side=head.max_side,
        flip=head.flip,
        crop_share=head.crop_share,
        crop_area=head.crop_area,
        colour=head.colour,
    )


def multiple(network: MultiBoxFastRcnn) -> int:
    """Sides of the input are padded to multiples of the coarsest map's stride, so that its cells are even parts."""
    return 2 * network.strides[-1]


REGION_STREAM = 1
"""The stream of an image's random numbers that chooses its regions; stream 0 has chosen how it is shown."""


def region_generators(seed: int, batch: AnnotatedBatch) -> list[np.random.Generator]:
    """The generator that draws the regions of each image: it depends on (seed, batch, position), not on the rank."""
    return [image_generator(seed, batch.number, position, stream=REGION_STREAM) for position in batch.positions]


def sampled(
    network: MultiBoxFastRcnn,
    output: Output,
    batch: AnnotatedBatch,
    sampling: SamplingConfig,
    proposals: int,
    generators: Sequence[np.random.Generator],
) -> RegionBatch:
    """Regions of each image of the batch, from the boxes that the network proposes as it is now.

    generators: one for each image.
    """
    chosen = []
    images = zip(batch.sizes, batch.truths, generators, strict=True)
    for place, (image_size, truth, generator) in enumerate(images):
        boxes, _ = network.propose(output, place, image_size, proposals)
        chosen.append(sample_regions(boxes.cpu().numpy(), truth, image_size, sampling, generator))
    rows = np.repeat(np.arange(len(chosen), dtype=np.float32), [len(one) for one in chosen])
    return RegionBatch(
        batch.images,
        np.concatenate([rows[:, None], np.concatenate([one.boxes for one in chosen])], axis=1),
        np.concatenate([one.labels for one in chosen]),
        np.concatenate([one.deltas for one in chosen]),
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
    """A function that gives val_loss, val_accuracy and val_fg_accuracy of the regions that the network proposes.

    It looks at no more than `images` images, evenly spread, whole, at the largest scale.
    """
    places = evenly_spread(len(val), images)
    every = replace(sampling, jittered=0)

    def validate() -> dict[str, float]:
        logits, labels = [], []
        for place in map(int, places):
            pixels, truth = views(head).plain(read_image(val[place].path), val[place].truth)
            pixel_batch, sizes = padded([pixels], multiple(network), mean_colour(network.backbone.spec))
            batch = AnnotatedBatch(pixel_batch, sizes, (truth,), (val[place].weights_of(truth),), place, (0,))
            with torch.inference_mode(), autocast(device, bf16):
                maps = network.feature_maps(torch.from_numpy(pixel_batch).to(device))
                output = network.predict(maps, (pixel_batch.shape[1], pixel_batch.shape[2]))
                regions = sampled(network, output, batch, every, head.proposals, region_generators(seed, batch))
                found, _ = network.classify(network.pool(maps, torch.from_numpy(regions.regions).to(device)))
            logits.append(found.float().cpu())
            labels.append(torch.from_numpy(regions.labels))
        return validation_numbers(torch.cat(logits), torch.cat(labels))

    return validate
