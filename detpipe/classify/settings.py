"""The settings of detection: how scored regions become detections."""

from __future__ import annotations

from dataclasses import dataclass, field

from detpipe.network.settings import Precision


@dataclass(kw_only=True)
class DetectConfig:
    """How regions become detections."""

    max_proposals: int = 1000
    """Proposals of an image that are classified, best first."""
    nms_iou: float = 0.3
    """Class-wise NMS drops a box that overlaps a better one by more than this (R-CNN's threshold)."""
    vote_iou: float | None = None
    """What stays becomes the mean, by score, of all boxes of its class that overlap it by this or more; null: as it is.
    (Gidaris & Komodakis 2015, box voting.)"""
    score_floor: float = 0.01
    """Detections with a lower probability are dropped."""
    max_detections: int = 100
    """Detections of one image at most, over all classes (COCO's number)."""
    batch_size: int = 64
    """Crops that go through the network at once."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: that of the detections on the test images, else bf16 where the hardware computes in it."""
    compile: bool = False
    """torch.compile: wins where the CPU lacks bf16, or on a GPU, once the work is longer than the half minute of
    compiling; a few per cent otherwise (benchmarks/inference.py). Needs a C++ compiler."""

    scales: list[int] = field(default_factory=list)
    """fast_rcnn: pixels of the shorter side; of several the mean scores count; none is the training's largest."""
    dedup_step: int = 0
    """Regions whose corners round to the same points of a grid of so many pixels are scored once; 0 scores all."""
    cascade_size: int | None = None
    """Of crops: a first look at crops of this side, in pixels, drops most of the background; null looks once."""
    cascade_keep: int = 200
    """cascade_size: regions of an image that are looked at again at full size."""
    flip: bool = False
    """fast_rcnn: look at the mirrored image, too, and take the mean scores."""
    second_look: int = 0
    """Of a head on stored features: so many of an image's likeliest regions are scored once more where their deltas
    bring them, and stand beside the others."""

    def __post_init__(self) -> None:
        self.scales = list(self.scales)
        if self.scales and min(self.scales) < 32:
            raise ValueError(f"detect.scales: expected sides of at least 32 pixels, got {self.scales}")
        if self.dedup_step < 0 or self.cascade_keep < 1 or (self.cascade_size is not None and self.cascade_size < 8):
            raise ValueError(
                "detect: expected dedup_step >= 0, cascade_keep >= 1, cascade_size of at least 8 pixels or null, got "
                f"{self.dedup_step}, {self.cascade_keep}, {self.cascade_size}"
            )
        if not 0 <= self.nms_iou <= 1 or not 0 <= self.score_floor <= 1:
            raise ValueError(
                f"detect: expected nms_iou and score_floor in [0, 1], got {self.nms_iou}, {self.score_floor}"
            )
        if self.vote_iou is not None and not 0 < self.vote_iou <= 1:
            raise ValueError(
                f"detect.vote_iou: expected an overlap above 0 and at most 1, or null, got {self.vote_iou}"
            )
        if self.second_look < 0:
            raise ValueError(f"detect.second_look: expected a number of regions from 0, got {self.second_look}")
        if min(self.max_proposals, self.max_detections, self.batch_size) < 1:
            raise ValueError("detect: expected max_proposals, max_detections and batch_size of at least 1")
