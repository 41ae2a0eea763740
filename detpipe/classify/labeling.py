"""Labelling of regions by IoU with the ground truth, and sampling of training regions.

R-CNN (Girshick et al. 2014, section 2.3): foreground at IoU >= 0.5, a fixed share of foreground; Fast R-CNN (section
2.3): background in [0.1, 0.5). P: proposals. G: objects. R: sampled regions. K: classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from detpipe import boxes as geometry
from detpipe.structures import BoolArray, Float32Array, GroundTruth, Int64Array

BACKGROUND = 0
IGNORED = -1


@dataclass(kw_only=True)
class SamplingConfig:
    """How training regions are labelled and sampled."""

    fg_iou: float = 0.5
    """Minimum IoU of a foreground region with its object."""
    bg_iou_low: float = 0.0
    """Minimum IoU of a background region with its nearest object (0.1 in Fast R-CNN)."""
    bg_iou_high: float = 0.5
    """A background region has a lower IoU than this with every object. Regions between bg_iou_high and fg_iou are not
    used."""
    fg_share: float = 0.25
    """Share of foreground among the regions of an image and of a training batch."""
    regions_per_image: int = 64
    """Maximum number of training regions per image."""
    max_proposals: int | None = 1000
    """Number of proposals per image to sample from, best first; null: all. Use the same cut-off as detection:
    lower-ranked proposals are easy negatives that would displace hard ones."""
    jittered: int = 8
    """Number of randomly shifted and scaled copies of each annotated box to sample from. Copies with an IoU below
    fg_iou are dropped."""
    own_boxes: bool = False
    """true: always train on the annotated boxes themselves. false: they may or may not be sampled."""
    val_share: float = 0.1
    """Share of the training images used for validation if the data set has no validation split."""

    def __post_init__(self) -> None:
        if not 0 <= self.bg_iou_low < self.bg_iou_high <= self.fg_iou <= 1:
            raise ValueError(
                "sampling: expected 0 <= bg_iou_low < bg_iou_high <= fg_iou <= 1, got "
                f"{self.bg_iou_low}, {self.bg_iou_high}, {self.fg_iou}"
            )
        for name in ("fg_share", "val_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"sampling.{name}: expected a share in [0, 1), got {getattr(self, name)}")
        if self.regions_per_image < 1 or self.jittered < 0:
            raise ValueError("sampling: expected regions_per_image >= 1 and jittered >= 0")
        if self.max_proposals is not None and self.max_proposals < 0:
            raise ValueError(f"sampling.max_proposals: expected a number from 0 or null, got {self.max_proposals}")


@dataclass(frozen=True, eq=False)
class Regions:
    """Labelled regions of one image.

    boxes: (R, 4) float32. labels: (R,) int64, 0 background, 1..K. ious: (R,) float32 with the object that gave the
    label, or the nearest one for background. deltas: (R, 4) float32, from the region to its object; 0 for background.
    """

    boxes: Float32Array
    labels: Int64Array
    ious: Float32Array
    deltas: Float32Array

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Int64Array) -> Regions:
        return Regions(*(getattr(self, field.name)[index] for field in fields(self)))


def label_regions(boxes: Float32Array, truth: GroundTruth, sampling: SamplingConfig) -> Regions:
    """Label each region with its nearest object's class, 0 for background, or -1 (IGNORED) for neither.

    boxes: (P, 4). A region that overlaps a difficult object or a crowd by bg_iou_high or more is ignored, unless it is
    the foreground of another object. P = 0 gives no regions. G = 0 makes every region background (IoU 0), or ignored
    if bg_iou_low is above 0.
    """
    usable = truth[~(truth.difficult | truth.crowd)]
    n = len(boxes)
    if len(usable):
        overlaps = geometry.iou(boxes, usable.boxes)
        nearest = overlaps.argmax(axis=1)
        ious = overlaps[np.arange(n), nearest]
    else:
        nearest, ious = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.float32)
    background = (ious >= sampling.bg_iou_low) & (ious < sampling.bg_iou_high)
    labels = np.where(background, BACKGROUND, IGNORED).astype(np.int64)
    labels[_on_unlabelled(boxes, truth, sampling.bg_iou_high)] = IGNORED
    deltas = np.zeros((n, 4), dtype=np.float32)
    foreground = np.flatnonzero(ious >= sampling.fg_iou) if len(usable) else np.zeros(0, dtype=np.int64)
    labels[foreground] = usable.labels[nearest[foreground]]
    deltas[foreground] = geometry.encode(boxes[foreground], usable.boxes[nearest[foreground]])
    return Regions(boxes, labels, ious, deltas)


def _on_unlabelled(boxes: Float32Array, truth: GroundTruth, threshold: float) -> BoolArray:
    """(P,) bool: whether the region overlaps a difficult object (by IoU) or lies in a crowd (by its own area)."""
    difficult, crowd = truth.boxes[truth.difficult & ~truth.crowd], truth.boxes[truth.crowd]
    on_difficult = (geometry.iou(boxes, difficult) >= threshold).any(axis=1)
    in_crowd = (geometry.overlap_of_first(boxes, crowd) >= threshold).any(axis=1)
    return np.asarray(on_difficult | in_crowd, dtype=np.bool_)


def sample_regions(
    proposals: Float32Array,
    truth: GroundTruth,
    image_size: tuple[int, int],
    sampling: SamplingConfig,
    generator: np.random.Generator,
) -> Regions:
    """The training regions of one image: up to fg_share of regions_per_image foreground, the rest background.

    Candidates are the proposals (P, 4), best first, the annotated boxes and their jittered copies. Boxes without area
    are dropped. With own_boxes all annotated boxes are taken first. If an image has too few foreground (or background)
    regions, it contributes fewer; they are not replaced by the other kind. No candidates give no regions.
    """
    usable = truth.boxes[~(truth.difficult | truth.crowd)]
    moved = jitter(usable, image_size, sampling, generator)
    candidates = np.concatenate([usable, moved, proposals[: sampling.max_proposals]])
    candidates = np.unique(candidates[geometry.area(candidates) > 0], axis=0)
    regions = label_regions(candidates, truth, sampling)
    n_foreground = round(sampling.fg_share * sampling.regions_per_image)
    foreground = np.flatnonzero(regions.labels > BACKGROUND)
    is_own = (regions.ious[foreground] == 1) & sampling.own_boxes
    chosen = [
        foreground[is_own],
        _choose(foreground[~is_own], max(n_foreground - int(is_own.sum()), 0), generator),
        _choose(np.flatnonzero(regions.labels == BACKGROUND), sampling.regions_per_image - n_foreground, generator),
    ]
    return regions[np.sort(np.concatenate(chosen))]


def jitter(
    objects: Float32Array, image_size: tuple[int, int], sampling: SamplingConfig, generator: np.random.Generator
) -> Float32Array:
    """Shifted and scaled copies of objects with an IoU of at least fg_iou, (G, 4) -> (<= G * jittered, 4)."""
    size = np.repeat(objects[:, 2:] - objects[:, :2], sampling.jittered, axis=0)
    centre = np.repeat((objects[:, 2:] + objects[:, :2]) / 2, sampling.jittered, axis=0)
    # Shifts of a fifth and scales of a quarter: about two in three copies keep an IoU of 0.5.
    centre = centre + size * generator.normal(0, 0.2, size.shape)
    size = size * np.exp(generator.normal(0, 0.25, size.shape))
    moved = geometry.clip(np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32), image_size)
    kept = geometry.iou(moved, objects).max(axis=1, initial=0) >= sampling.fg_iou
    return np.ascontiguousarray(moved[kept])


def _choose(indices: Int64Array, count: int, generator: np.random.Generator) -> Int64Array:
    return indices if len(indices) <= count else generator.choice(indices, count, replace=False)
