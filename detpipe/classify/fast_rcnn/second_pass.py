"""Training of the second pass: regions are moved by their deltas, as in detection (`head.refine`), and learned again.

It is the second stage of Cascade R-CNN (Cai & Vasconcelos 2018), with the weights of the first.
"""

from __future__ import annotations

import numpy as np
import torch

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions, moved_by_best
from detpipe.classify.fast_rcnn.batches import RegionBatch
from detpipe.classify.fast_rcnn.scorer import REFINED_FROM
from detpipe.classify.labeling import BACKGROUND, SamplingConfig, label_regions
from detpipe.heads.fast_rcnn.network import RegionOutputs
from detpipe.structures import Float32Array, Int64Array


def moved_regions(batch: RegionBatch, outputs: RegionOutputs, sampling: SamplingConfig) -> RegionBatch:
    """The regions of a batch after they were moved by the deltas of their most probable class, and labelled again.

    batch: with `truths` and `sizes`. outputs: for its regions. Left out are background that detection would not score
    again, boxes without area, and regions that are neither foreground nor background. None left gives R = 0.
    """
    assert outputs.deltas is not None
    with torch.no_grad():
        scored = ScoredRegions(
            outputs.logits.float().softmax(dim=1).cpu().numpy(), outputs.deltas.float().cpu().numpy()
        )
    is_learned = (scored.probabilities[:, 1:].max(axis=1) >= REFINED_FROM) | (batch.labels > BACKGROUND)
    images = batch.regions[:, 0]
    regions: list[Float32Array] = []
    labels: list[Int64Array] = []
    deltas: list[Float32Array] = []
    for index, (truth, size) in enumerate(zip(batch.truths, batch.sizes, strict=True)):
        rows = np.flatnonzero(is_learned & (images == index))
        found = label_regions(moved_by_best(batch.regions[rows, 1:], scored.of(rows), size), truth, sampling)
        found = found[np.flatnonzero((found.labels >= BACKGROUND) & (geometry.area(found.boxes) > 0))]
        regions.append(np.insert(found.boxes, 0, index, axis=1))
        labels.append(found.labels)
        deltas.append(found.deltas)
    return RegionBatch(
        batch.images,
        np.concatenate(regions),
        np.concatenate(labels),
        np.concatenate(deltas),
        truths=batch.truths,
        sizes=batch.sizes,
    )
