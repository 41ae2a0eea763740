"""The settings of detection: how regions are scored, and how scored regions become detections."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from detpipe.tiles import TilesConfig


@dataclass(kw_only=True)
class CropScoringConfig:
    """Detection with a classifier of crops (head=softmax)."""

    cascade_size: int | None = None
    """Side in pixels of small crops on which all regions are scored first; the best are scored again at full size.
    null: all regions are scored at full size only."""
    cascade_keep: int = 200
    """With cascade_size: number of regions per image to score again at full size."""

    def __post_init__(self) -> None:
        if self.cascade_size is not None and self.cascade_size < 8:
            raise ValueError(f"detect.crops.cascade_size: expected at least 8 pixels or null, got {self.cascade_size}")
        if self.cascade_keep < 1:
            raise ValueError(f"detect.crops.cascade_keep: expected at least 1 region, got {self.cascade_keep}")


class Duplicates(enum.Enum):
    """How several boxes of one object are reduced to one: by non-maximum suppression, by the learned probability that a
    box is the best one of its object, or by both."""

    nms = "nms"
    learned = "learned"
    both = "both"


@dataclass(kw_only=True)
class FastRcnnScoringConfig:
    """Detection with Fast R-CNN (head=fast_rcnn or multibox_fast_rcnn)."""

    scales: list[int] = field(default_factory=list)
    """Test scales: lengths of the image's shorter side in pixels. The scores of several scales are averaged. Empty: the
    largest training scale."""
    flip: bool = False
    """Also score the mirrored image, and average the scores."""
    tiles: TilesConfig = field(default_factory=TilesConfig)
    """Tiles of large images. Each is scored as an image of its own, and the detections are joined."""
    duplicates: Duplicates = Duplicates.nms
    """How several boxes of one object become one. nms: non-maximum suppression. learned: scores are multiplied by the
    learned probability that a region is the best one of its object, and nothing is suppressed. both: the scores of
    learned, then nms. learned and both need a network with head.attention above 0."""

    def __post_init__(self) -> None:
        self.scales = list(self.scales)
        if self.scales and min(self.scales) < 32:
            raise ValueError(f"detect.fast_rcnn.scales: expected at least 32 pixels each, got {self.scales}")


@dataclass(kw_only=True)
class FeatureScoringConfig:
    """Detection with a head on stored features (head=svm and others)."""

    refine: int = 0
    """Number of top-scoring regions per image to rescore after box refinement. The refined boxes are added to the
    original regions. 0: none."""

    def __post_init__(self) -> None:
        if self.refine < 0:
            raise ValueError(f"detect.features.refine: expected at least 0 regions, got {self.refine}")


@dataclass(kw_only=True)
class DetectConfig:
    """Which regions are scored, and which of them become detections.

    crops, fast_rcnn and features each belong to one kind of classifier.
    """

    max_proposals: int = 1000
    """Number of proposals per image that are scored, best first."""
    nms_iou: float = 0.3
    """IoU threshold of class-wise non-maximum suppression (0.3 in R-CNN)."""
    vote_iou: float | None = None
    """Box voting (Gidaris & Komodakis 2015): each detection becomes the score-weighted mean of all boxes of its class
    with at least this IoU. null: no voting."""
    score_floor: float = 0.01
    """Minimum score of a detection."""
    max_detections: int = 100
    """Maximum number of detections per image, over all classes (100 in COCO)."""
    dedup_step: int = 0
    """Grid step in pixels: of regions whose corners round to the same grid points, only the first is scored. 0: score
    all."""
    batch_size: int = 64
    """Number of crops in one forward pass."""
    compile: bool = False
    """Compile the network with torch.compile. Pays off on a GPU, or on a CPU without bf16, if detection takes much
    longer than the half minute of compiling. Needs a C++ compiler."""

    crops: CropScoringConfig = field(default_factory=CropScoringConfig)
    """Only for a classifier of crops (head=softmax)."""
    fast_rcnn: FastRcnnScoringConfig = field(default_factory=FastRcnnScoringConfig)
    """Only for Fast R-CNN (head=fast_rcnn or multibox_fast_rcnn)."""
    features: FeatureScoringConfig = field(default_factory=FeatureScoringConfig)
    """Only for a head on stored features (head=svm and others)."""

    def __post_init__(self) -> None:
        if not 0 <= self.nms_iou <= 1 or not 0 <= self.score_floor <= 1:
            raise ValueError(
                f"detect: expected nms_iou and score_floor in [0, 1], got {self.nms_iou}, {self.score_floor}"
            )
        if self.vote_iou is not None and not 0 < self.vote_iou <= 1:
            raise ValueError(f"detect.vote_iou: expected an IoU above 0 and at most 1, or null, got {self.vote_iou}")
        if self.dedup_step < 0:
            raise ValueError(f"detect.dedup_step: expected at least 0 pixels, got {self.dedup_step}")
        for name in ("max_proposals", "max_detections", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"detect.{name}: expected at least 1, got {getattr(self, name)}")

    @property
    def suppressed_above(self) -> float:
        """The IoU with a better box above which a box is suppressed; 1 suppresses none."""
        return 1.0 if self.fast_rcnn.duplicates is Duplicates.learned else self.nms_iou
