"""Scores of regions by heads that did not see their image: one head for each fold, trained on the other folds.

N: regions of all images. D: feature width. G: geometry features. K: classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from detpipe import boxes as geometry
from detpipe.classify.labeling import IGNORED, SamplingConfig, label_regions
from detpipe.heads.stored.feature_head import Examples, FeatureHead, StoredHeadConfig
from detpipe.labels.regions import AuditRegions, Role, at_least_a_pixel
from detpipe.structures import Float32Array, GroundTruth, Int64Array

ROWS_AT_ONCE = 16384
"""Rows that are scored together."""


@dataclass(frozen=True, eq=False)
class RegionTable:
    """The regions of all images, one below the other.

    features: (N, D) float32. geometry: (N, G) float32. boxes: (N, 4). folds: (N,) int64, the fold of the region's
    image. classes: K names.
    """

    features: Float32Array
    geometry: Float32Array
    boxes: Float32Array
    folds: Int64Array
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Targets:
    """What a head learns about the regions. labels: (N,), 0 background, -1 not used. ious: (N,) with the nearest
    object. deltas: (N, 4) to it."""

    labels: Int64Array
    ious: Float32Array
    deltas: Float32Array


@dataclass(frozen=True, eq=False)
class RegionScores:
    """scores: (N, K) float32 in [0, 1]. deltas: (N, 4) float32, the box regression for the class of highest score."""

    scores: Float32Array
    deltas: Float32Array

    def __getitem__(self, rows: slice) -> RegionScores:
        return RegionScores(self.scores[rows], self.deltas[rows])


def targets_of(regions: AuditRegions, truth: GroundTruth, background: int, generator: np.random.Generator) -> Targets:
    """Targets of the regions of one image. At most `background` of those on the background are used.

    truth: the objects, clipped to the image. Regions on difficult objects and crowds are not used.
    """
    found = label_regions(regions.boxes, truth, SamplingConfig())
    labels = found.labels.copy()
    # Copies of wrong and invented boxes are not natural regions: heads learn from the others.
    labels[np.isin(regions.roles, (Role.near_shifted, Role.near_invented))] = IGNORED
    on_background = np.flatnonzero(labels == 0)
    if len(on_background) > background:
        kept = generator.choice(on_background, background, replace=False)
        labels[np.setdiff1d(on_background, kept)] = IGNORED
    return Targets(labels, found.ious, found.deltas)


def examples_of(table: RegionTable, targets: Targets, rows: Int64Array) -> Examples:
    """Training examples for a head: the rows of the table with their targets."""
    labels = targets.labels[rows]
    class_ious = np.zeros((len(rows), len(table.classes)), dtype=np.float32)
    objects = np.flatnonzero(labels > 0)
    class_ious[objects, labels[objects] - 1] = targets.ious[rows][objects]
    background = np.flatnonzero(labels == 0)
    # Of which class the nearest object is does not matter to a head of all classes.
    class_ious[background, 0] = targets.ious[rows][background] if len(table.classes) else 0
    return Examples(
        features=table.features[rows],
        geometry=table.geometry[rows],
        labels=labels,
        ious=targets.ious[rows],
        deltas=targets.deltas[rows],
        class_ious=class_ious,
        classes=table.classes,
    )


def train_without(
    table: RegionTable, targets: Targets, fold: int, head: StoredHeadConfig, *, seed: int, bf16: bool
) -> FeatureHead | None:
    """A head that is trained on the images of all folds but one; None if these have no object."""
    rows = np.flatnonzero((table.folds != fold) & (targets.labels != IGNORED))
    if not (targets.labels[rows] > 0).any():
        return None
    return head.train(examples_of(table, targets, rows), seed=seed, bf16=bf16)


def score_rows(head: FeatureHead | None, table: RegionTable, rows: Int64Array) -> RegionScores:
    """The scores of rows of the table by a head. Without a head all scores and deltas are 0."""
    scores = np.zeros((len(rows), len(table.classes)), dtype=np.float32)
    deltas = np.zeros((len(rows), 4), dtype=np.float32)
    if head is None:
        return RegionScores(scores, deltas)
    head.cpu()
    with torch.inference_mode():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            features, places = (torch.from_numpy(one[rows[part]]) for one in (table.features, table.geometry))
            found, moves = head(features, places)
            scores[part] = found[:, 1:].numpy()
            if moves is not None:
                best = found[:, 1:].argmax(dim=1)
                deltas[part] = moves[torch.arange(len(best)), best].numpy()
    return RegionScores(scores, deltas)


def moved_boxes(boxes: Float32Array, deltas: Float32Array, image_size: tuple[int, int]) -> Float32Array:
    """Boxes (R, 4) after box regression, clipped; one that would be narrower than a pixel stays as it was."""
    moved = geometry.clip(geometry.decode(boxes, deltas), image_size)
    return np.where(at_least_a_pixel(moved)[:, None], moved, boxes).astype(np.float32)


def reduced(features: npt.NDArray[np.floating], width: int, seed: int) -> Float32Array:
    """Features (N, D) as float32, reduced to their first principal components, (N, width).

    With a width of 0, or one that is not below D, they are not reduced. Labels are not used, so the components may come
    from all images.
    """
    n, d = features.shape
    if not 0 < width < d or not n:
        return np.asarray(features, dtype=np.float32)
    mean, directions = principal_directions(features, width, seed)
    parts = [
        (np.asarray(features[start : start + ROWS_AT_ONCE], dtype=np.float32) - mean) @ directions
        for start in range(0, n, ROWS_AT_ONCE)
    ]
    return np.concatenate(parts)


def principal_directions(
    features: npt.NDArray[np.floating], width: int, seed: int, *, sample: int = 6000, passes: int = 2
) -> tuple[Float32Array, Float32Array]:
    """Mean (D,) and directions (D, width) that keep most of the variance of standardised features.

    Randomised subspace iteration (Halko, Martinsson & Tropp 2011) on a random sample of rows.
    """
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(len(features), min(sample, len(features)), replace=False))
    x = torch.from_numpy(np.asarray(features[rows], dtype=np.float32))
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    scale = 1 / scale.clamp(min=max(1e-3 * float(scale.mean()), 1e-6))
    x = (x - mean) * scale
    random = generator.standard_normal((x.shape[1], width)).astype(np.float32)
    basis = torch.linalg.qr(x.T @ (x @ torch.from_numpy(random)))[0]
    for _ in range(passes):
        basis = torch.linalg.qr(x.T @ (x @ basis))[0]
    return mean.numpy(), (basis * scale[:, None]).numpy()
