"""Denoising queries (Li et al. 2022, "DN-DETR"): boxes near objects that learn beside the regions of an image.

Each object gives pairs of a shifted copy and a false box beside it. The pairs of one draw for all objects of an image
are a set: they attend to each other, and never to the regions of the image or to another set. So what is learned from
boxes that only annotations can give does not leak into the regions. Each set also gives each object one more positive.

Q: queries of a batch. G: objects of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detpipe import boxes as geometry
from detpipe.classify.crops.train import region_losses
from detpipe.classify.labeling import BACKGROUND, SamplingConfig, label_regions
from detpipe.heads.fast_rcnn.best_box import best_box_loss
from detpipe.heads.fast_rcnn.network import FastRcnn, RegionOutputs
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.network.box_views import learned
from detpipe.structures import Float32Array, GroundTruth, Int64Array

STREAM = 2
"""The random number stream of the queries of an image; 0 draws its augmentation, 1 its regions."""

SHIFT, LOG_SCALE = 0.2, 0.25
"""Largest shift of a copy, as a share of the object's sides, and largest change of the logarithm of its sides."""

FALSE_SHIFT = (0.5, 1.0)
"""Smallest and largest shift of a false box, as a share of the object's sides."""


@dataclass(frozen=True, eq=False)
class Queries:
    """The denoising queries of a batch.

    regions: (Q, 5) float32, index of the image and box. sets: (Q,) float32; no number is the index of an image. labels:
    (Q,) int64, 0 is background. deltas: (Q, 4), 0 for background. ious: (Q,) with the nearest object.
    """

    regions: Float32Array
    sets: Float32Array
    labels: Int64Array
    deltas: Float32Array
    ious: Float32Array


def denoising_queries(
    truths: Sequence[GroundTruth],
    sizes: Sequence[tuple[int, int]],
    count: int,
    sampling: SamplingConfig,
    generators: Sequence[np.random.Generator],
) -> Queries:
    """Draw `count` pairs for each object of each image that is neither difficult nor a crowd.

    sizes: (height, width) of each image. generators: one for each image. Boxes are clipped; those without area and
    those that are neither foreground nor background are left out. No objects give Q = 0.
    """
    regions, sets, labels, deltas, ious = [], [], [], [], []
    for index, (truth, size, generator) in enumerate(zip(truths, sizes, generators, strict=True)):
        objects = learned(truth)
        boxes = np.concatenate([noisy(objects, size, generator) for _ in range(count)])
        number = len(truths) + index * count + np.repeat(np.arange(count), 2 * len(objects))
        found = label_regions(boxes, truth, sampling)
        rows = np.flatnonzero((geometry.area(boxes) > 0) & (found.labels >= BACKGROUND))
        regions.append(np.concatenate([np.full((len(rows), 1), index), boxes[rows]], axis=1).astype(np.float32))
        sets.append(number[rows].astype(np.float32))
        labels.append(found.labels[rows])
        deltas.append(found.deltas[rows])
        ious.append(found.ious[rows])
    return Queries(
        np.concatenate(regions),
        np.concatenate(sets),
        np.concatenate(labels),
        np.concatenate(deltas),
        np.concatenate(ious),
    )


def noisy(objects: Float32Array, image_size: tuple[int, int], generator: np.random.Generator) -> Float32Array:
    """A copy and a false box of each object: (G, 4) -> (2 G, 4), clipped to the image, first all copies."""
    sides, centres = objects[:, 2:] - objects[:, :2], (objects[:, 2:] + objects[:, :2]) / 2
    shifts = generator.uniform(-SHIFT, SHIFT, sides.shape)
    far = generator.uniform(*FALSE_SHIFT, sides.shape) * generator.choice([-1.0, 1.0], sides.shape)
    scales = np.exp(generator.uniform(-LOG_SCALE, LOG_SCALE, (2, *sides.shape)))
    made = []
    for shift, scale in zip((shifts, far), scales, strict=True):
        centre, half = centres + shift * sides, sides * scale / 2
        made.append(np.concatenate([centre - half, centre + half], axis=1))
    return geometry.clip(np.concatenate(made).astype(np.float32), image_size)


def predicted(
    network: FastRcnn, maps: Sequence[Tensor], regions: Tensor, queries: Queries | None
) -> tuple[RegionOutputs, RegionOutputs | None]:
    """The predictions for regions (R, 5) and for the queries; None without queries."""
    if queries is None:
        return network.outputs(network.attended(network.hidden(network.pool(maps, regions)), regions)), None
    places = torch.cat([regions, torch.from_numpy(queries.regions).to(regions.device)])
    sets = torch.cat([regions[:, 0], torch.from_numpy(queries.sets).to(regions.device)])
    both = network.outputs(network.attended(network.hidden(network.pool(maps, places)), places, sets))
    return both.of(slice(len(regions))), both.of(slice(len(regions), None))


def with_denoising(
    losses: Mapping[str, Tensor],
    network: FastRcnn,
    outputs: RegionOutputs | None,
    queries: Queries | None,
    head: FastRcnnConfig,
) -> dict[str, Tensor]:
    """Add "denoise_loss" to the losses and to "loss": class and box loss of the queries as of regions, and
    head.best_weight times the loss of the logit of the best box, whose target is the query's IoU with its object.

    Without queries nothing is added.
    """
    if outputs is None or queries is None:
        return dict(losses)
    assert outputs.best is not None
    device = outputs.logits.device
    of_regions = region_losses(network.box_regressor, outputs.logits, outputs.deltas, queries, head, device)
    best = best_box_loss(outputs.best, torch.from_numpy(queries.ious).to(device))
    loss = of_regions["loss"] + head.best_weight * best
    return {**losses, "loss": losses["loss"] + loss, "denoise_loss": loss}
