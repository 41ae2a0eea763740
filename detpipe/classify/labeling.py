"""Which regions a classifier is trained on, and as what: labels by IoU with the ground truth, sampled by shares.

R-CNN (Girshick et al. 2014, section 2.3): foreground at IoU >= 0.5, a fixed share of foreground; Fast R-CNN (section
2.3): background in [0.1, 0.5). P: proposals. G: objects. R: sampled regions. K: classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from detpipe import boxes as geometry
from detpipe.structures import BoolArray, Float32Array, GroundTruth, Int64Array

BACKGROUND = 0
IGNORED = -1


@dataclass(kw_only=True)
class SamplingConfig:
    """How regions become examples."""

    fg_iou: float = 0.5
    """A region is an object's at this IoU or more."""
    bg_iou_low: float = 0.0
    """A region is background at this IoU or more with its nearest object ..."""
    bg_iou_high: float = 0.5
    """... and below this one."""
    fg_share: float = 0.25
    """Share of foreground among an image's regions, and in a batch of training."""
    regions_per_image: int = 64
    """Regions taken from one image at most."""
    max_proposals: int | None = 1000
    """The best proposals of an image that are candidates, as in detection: what the detector won't see would take the
    places of what is harder to tell; null for all."""
    jittered: int = 8
    """Moved copies of each object's box among the candidates (IoU at least fg_iou), where proposals are few."""
    own_boxes: bool = False
    """Whether each object's own box is always among the regions, beyond fg_share if need be, or a candidate only."""
    val_share: float = 0.1
    """Share of the training images whose crops go to validation, where the data set names no validation images."""

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

    def key(self) -> dict[str, Any]:
        """As part of an artefact's key. own_boxes, which came later, only where it is set: older ones stay valid."""
        return {name: value for name, value in vars(self).items() if name != "own_boxes" or value}


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
    """Give each region a label: its nearest object's, 0, or -1 (IGNORED) for what is neither.

    boxes: (P, 4). Difficult objects and crowds teach nothing: a region that overlaps one by bg_iou_high or more is
    ignored, unless it is another object's. P = 0 gives no regions; G = 0 makes every region background (IoU 0),
    or ignored where bg_iou_low is above 0.
    """
    taught = truth[~(truth.difficult | truth.crowd)]
    n = len(boxes)
    if len(taught):
        overlaps = geometry.iou(boxes, taught.boxes)
        nearest = overlaps.argmax(axis=1)
        ious = overlaps[np.arange(n), nearest]
    else:
        nearest, ious = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.float32)
    background = (ious >= sampling.bg_iou_low) & (ious < sampling.bg_iou_high)
    labels = np.where(background, BACKGROUND, IGNORED).astype(np.int64)
    labels[_touches_untaught(boxes, truth, sampling.bg_iou_high)] = IGNORED
    deltas = np.zeros((n, 4), dtype=np.float32)
    foreground = np.flatnonzero(ious >= sampling.fg_iou) if len(taught) else np.zeros(0, dtype=np.int64)
    labels[foreground] = taught.labels[nearest[foreground]]
    deltas[foreground] = geometry.encode(boxes[foreground], taught.boxes[nearest[foreground]])
    return Regions(boxes, labels, ious, deltas)


def _touches_untaught(boxes: Float32Array, truth: GroundTruth, threshold: float) -> BoolArray:
    """(P,) bool: the region lies on a difficult object (by IoU) or in a crowd (by its own share)."""
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
    """The examples of one image: up to fg_share of regions_per_image foreground, the rest background.

    Candidates are the proposals (P, 4), best first, the objects' own boxes and their jittered copies. Those without a
    pixel are left out. With own_boxes the objects' own are chosen first, all of them. An image with too few of a kind
    gives fewer; the other kind doesn't fill its place, or the shares of a data set would follow its emptiest images.
    Neither proposals nor objects give no regions.
    """
    taught = truth.boxes[~(truth.difficult | truth.crowd)]
    moved = jitter(taught, image_size, sampling, generator)
    candidates = np.concatenate([taught, moved, proposals[: sampling.max_proposals]])
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
    """Moved and scaled copies of objects, (G, 4) -> (<= G * jittered, 4): those that keep an IoU of fg_iou."""
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
