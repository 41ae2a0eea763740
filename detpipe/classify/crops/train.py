"""Fine-tuning a region classifier on a database of crops (R-CNN, Girshick et al. 2014, section 2.3).

N: crops in a batch. K: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detpipe.classify.crops.database import CropBatch, CropsReader
from detpipe.classify.crops.network import RcnnNetwork
from detpipe.heads.bbox_regressor import BoxRegressor
from detpipe.heads.region_head import TrainedHeadConfig
from detpipe.heads.softmax import softmax_loss
from detpipe.network.batch_order import BalancedOrder
from detpipe.network.device import autocast
from detpipe.network.train_network import RunContext, train_network
from detpipe.solver.solver_config import SolverConfig
from detpipe.structures import Float32Array, Int64Array

VALIDATION_CROPS = 2000
"""Validation uses at most this many crops, evenly spaced, to keep its share of the training time small."""


def fine_tune(
    network: RcnnNetwork,
    train: CropsReader,
    val: CropsReader | None,
    *,
    head: TrainedHeadConfig,
    fg_share: float,
    context: RunContext,
) -> dict[str, float]:
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to `context.folder`.

    With several processes (`context.ranks`), each reads its own part of every batch.

    Raises ValueError for an empty database, Interrupted after a signal.
    """
    device, batch_size = context.device, context.solver.batch_size
    order = BalancedOrder(train.labels, batch_size=batch_size, fg_share=fg_share, seed=context.seed)
    new_modules = [network.head, *([network.box_regressor] if network.box_regressor is not None else [])]

    part = context.ranks.part(batch_size)

    def make_batch(number: int) -> CropBatch:
        batch = train.read(order(number)[part])
        if not head.flip:
            return batch
        # Drawn for the whole batch, so that mirroring does not depend on the rank that reads the crop.
        chosen = np.random.default_rng((context.seed, number)).random(batch_size) < 0.5
        return mirrored(batch, chosen[part])

    def loss(batch: CropBatch) -> Mapping[str, Tensor]:
        with autocast(device, context.bf16):
            logits, deltas = network(torch.from_numpy(batch.crops).to(device))
        return region_losses(network.box_regressor, logits, deltas, batch, head, device)

    return train_network(
        network,
        new_modules=new_modules,
        examples=len(train),
        data=f"{len(train):,} crops",
        few_passes=1,  # each object is in many crops
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, device, context.bf16, validation_crops(context.solver)) if val else None,
        learning=head,
        context=context,
    )


class LabelledRegions(Protocol):
    """Targets of a batch of regions. labels: (N,) int64, 0 is background. deltas: (N, 4), 0 for background."""

    @property
    def labels(self) -> Int64Array: ...

    @property
    def deltas(self) -> Float32Array: ...


def region_losses(
    regressor: BoxRegressor | None,
    logits: Tensor,
    deltas: Tensor | None,
    batch: LabelledRegions,
    head: TrainedHeadConfig,
    device: torch.device,
    *,
    fg_share: float = 0.0,
    foreground_weight: float = 1.0,
) -> dict[str, Tensor]:
    """The multi-task loss of Fast R-CNN, eq. 1: "loss" = "class_loss" + weight x "box_loss"; and "accuracy".

    fg_share, foreground_weight: see `region_weights`. By default all regions count alike in the class loss.
    A batch without regions has a loss of 0. It occurs for images without objects, if background must overlap an object.
    """
    labels = torch.from_numpy(batch.labels).to(device)
    if len(labels):
        weights = region_weights(labels, fg_share, foreground_weight)
        class_loss = (weights * softmax_loss(logits, labels, head.label_smoothing, reduction="none")).mean()
    else:
        class_loss = logits.float().sum()
    losses = {"loss": class_loss, "class_loss": class_loss}
    if regressor is not None and deltas is not None:
        targets = torch.from_numpy(batch.deltas).to(device)
        box_loss = regressor.loss(deltas, labels, targets, kind=head.box_loss, beta=head.box_loss_beta)
        losses.update({"loss": class_loss + head.box_loss_weight * box_loss, "box_loss": box_loss})
    losses["accuracy"] = (logits.argmax(dim=1) == labels).float().sum() / max(len(labels), 1)
    return losses


def region_weights(labels: Tensor, fg_share: float, most: float) -> Tensor:
    """Weights (N,) of regions in the class loss, whose mean is 1. labels: (N,), 0 is background.

    If less than fg_share of the regions are foreground, these get a larger weight, at most `most`, and all foreground
    at most fg_share of the weight. Else, and if one kind is missing, all weights are 1.
    """
    n, n_fg = len(labels), int((labels > 0).sum())
    weights = torch.ones(n, device=labels.device)
    if not 0 < n_fg < n:
        return weights
    own = min(most, fg_share * n / n_fg)
    if own > 1:
        weights[labels > 0] = own
        weights[labels == 0] = (n - own * n_fg) / (n - n_fg)
    return weights


def mirrored(batch: CropBatch, chosen: npt.NDArray[np.bool_]) -> CropBatch:
    """Mirror the chosen crops left to right, and change the sign of dx. chosen: (N,) mask."""
    crops, deltas = batch.crops.copy(), batch.deltas.copy()
    crops[chosen] = crops[chosen, :, ::-1]
    deltas[chosen, 0] *= -1
    return CropBatch(crops, batch.labels, deltas)


def validation_crops(solver: SolverConfig) -> int:
    """The number of crops in a validation: test_iter batches, or VALIDATION_CROPS if test_iter is not set."""
    return VALIDATION_CROPS if solver.test_iter is None else solver.test_iter * solver.batch_size


def validation(
    network: RcnnNetwork, val: CropsReader, device: torch.device, bf16: bool, crops: int = VALIDATION_CROPS
) -> Callable[[], dict[str, float]]:
    """A function that returns val_loss, val_accuracy and val_fg_accuracy (of foreground crops only) of `network`.

    It uses at most `crops` crops, evenly spaced.
    """
    indices = np.unique(np.linspace(0, len(val) - 1, min(len(val), crops)).round().astype(np.int64))

    def validate() -> dict[str, float]:
        logits, labels = [], []
        with torch.inference_mode(), autocast(device, bf16):
            for part in np.array_split(indices, -(-len(indices) // 128)):
                batch = val.read(part)
                logits.append(network(torch.from_numpy(batch.crops).to(device))[0].float().cpu())
                labels.append(torch.from_numpy(batch.labels))
        return validation_numbers(torch.cat(logits), torch.cat(labels))

    return validate


def validation_numbers(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """val_loss, val_accuracy and val_fg_accuracy of logits (N, K + 1) and labels (N,). N = 0 gives zeros."""
    correct = (logits.argmax(dim=1) == labels).float()
    foreground = labels > 0
    return {
        "val_loss": float(softmax_loss(logits, labels)) if len(labels) else 0.0,
        "val_accuracy": float(correct.mean()) if len(labels) else 0.0,
        "val_fg_accuracy": float(correct[foreground].mean()) if foreground.any() else 0.0,
    }


def solve_box_regression(
    network: RcnnNetwork, train: CropsReader, head: TrainedHeadConfig, *, device: torch.device, bf16: bool
) -> None:
    """Fit the box regressor by R-CNN's ridge regression on the features of regions with IoU > ridge_iou.

    Raises ValueError if there is no such region.
    """
    assert network.box_regressor is not None
    indices = np.flatnonzero((train.labels > 0) & (train.ious > head.ridge_iou))
    if not len(indices):
        raise ValueError(
            f"head.ridge_iou: expected regions with IoU > {head.ridge_iou} for ridge regression, got none; "
            "lower head.ridge_iou"
        )
    network.eval()
    features, deltas = [], []
    with torch.inference_mode(), autocast(device, bf16):
        for part in np.array_split(indices, -(-len(indices) // 128)):
            batch = train.read(part)
            features.append(network.features(torch.from_numpy(batch.crops).to(device)).float().cpu().numpy())
            deltas.append(batch.deltas)
    network.box_regressor.to("cpu")
    network.box_regressor.solve(
        np.concatenate(features), train.labels[indices], np.concatenate(deltas), ridge=head.ridge
    )
    network.box_regressor.to(device)
