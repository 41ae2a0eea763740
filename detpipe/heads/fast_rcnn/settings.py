"""The settings of Fast R-CNN, alone and with MultiBox on its maps."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from detpipe.heads.multibox.settings import MultiBoxTargetConfig, check_views
from detpipe.heads.region_head import BoxLoss, BoxRegression, TrainedHeadConfig


class Pooling(enum.Enum):
    """align samples between the map's steps; pool takes the largest of each bin, whose borders are rounded to steps."""

    align = "align"
    pool = "pool"


@dataclass(kw_only=True)
class FastRcnnConfig(TrainedHeadConfig):
    """Which maps regions are pooled from, and what classifies them. `flip` mirrors half of the training images."""

    maps: list[str] = field(default_factory=lambda: ["stride8", "stride16", "stride32"])
    """Feature maps of the backbone, fine to coarse; a region is pooled from the one that suits its size."""
    merge_width: int | None = 96
    """Channels of the maps after a top-down merge (FPN); null leaves the maps as they are, which takes a single one."""
    pooling: Pooling = Pooling.align
    """align (RoIAlign) or pool (RoIPool)."""
    pool_size: int = 7
    """Side of a pooled region."""
    hidden: int = 512
    """Width of the two layers before the classes."""
    start_gain: float = 1 / 3
    """Variance of their first weights times the width below: 2 keeps the size of what passes through (He et al. 2015);
    1/3, torch's own, leaves less of it to chance and more to what is learned."""
    dropout: float = 0.0
    """Share of features dropped in training. None: the boxes are less exact for it."""
    box_loss: BoxLoss = BoxLoss.giou
    """smooth_l1 (the paper's) or giou."""
    box_loss_weight: float = 10.0
    """Weight of the box loss beside the classes' (Fast R-CNN's lambda): 10 for giou, 1 for smooth_l1."""
    box_loss_beta: float = 1 / 9
    """smooth_l1: 1 in the paper; 1/9 as of Faster R-CNN in torchvision and Detectron, whose boxes are more exact."""
    images_per_batch: int = 2
    """Images that share a batch's regions (hierarchical sampling, section 2.3): solver.batch_size is of regions."""
    scales: list[int] = field(default_factory=lambda: [320, 352, 384])
    """Pixels of an image's shorter side in training: one of them at random for each image; the last one in testing."""
    max_side: int = 640
    """Pixels of the longer side at most."""
    refine: int = 1
    """Testing: how often likely regions are moved by their deltas and scored again (Gidaris & Komodakis 2015)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maps, self.scales = list(self.maps), list(self.scales)
        if not self.maps or (self.merge_width is None and len(self.maps) > 1):
            raise ValueError(
                f"head.maps: expected one map, or several with head.merge_width=WIDTH, got {self.maps} without"
            )
        if self.box_regression is BoxRegression.ridge:
            raise ValueError(
                "head.box_regression: fast_rcnn trains it with the classes: expected joint or none, got ridge"
            )
        for name in ("pool_size", "hidden", "images_per_batch", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"head.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.start_gain > 0:
            raise ValueError(f"head.start_gain: expected a number above 0, got {self.start_gain}")
        if self.refine < 0:
            raise ValueError(f"head.refine: expected a number from 0, got {self.refine}")
        if self.merge_width is not None and self.merge_width < 1:
            raise ValueError(f"head.merge_width: expected at least 1 channel or null, got {self.merge_width}")
        if not self.scales or min(self.scales) < 32:
            raise ValueError(f"head.scales: expected sides of at least 32 pixels, got {self.scales}")


@dataclass(kw_only=True)
class MultiBoxFastRcnnConfig(FastRcnnConfig):
    """Fast R-CNN that proposes for itself."""

    multibox: MultiBoxTargetConfig = field(default_factory=lambda: MultiBoxTargetConfig(coarser=False))
    """How the proposals are learned."""
    multibox_weight: float = 1.0
    """Weight of their loss beside that of the regions."""
    proposals: int = 300
    """Training: the network's best boxes of an image, which regions are sampled from."""
    proposal_nms: float = 0.7
    """A proposal that overlaps a better one by more than this is dropped, in training and testing."""
    quality: float = 0.5
    """Testing: a region's score is p^(1 - quality) q^quality, of the class's probability p and the proposal's own
    confidence q, which is learned to be the IoU of its box with the object. 0 leaves p alone."""
    refine: int = 0
    """Testing: how often likely regions are moved by their deltas and scored again. The preset of this name does it
    once, for boxes that are more exact."""
    crop_share: float = 0.0
    """Share of the training images that are shown in part ..."""
    crop_area: float = 0.3
    """... of at least this share of their area."""
    colour: float = 0.2
    """Brightness, contrast and saturation vary by this share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_width is None:
            raise ValueError("head.merge_width: multibox_fast_rcnn merges its maps: expected a width, got null")
        if self.proposals < 1 or not 0 <= self.proposal_nms <= 1 or not 0 <= self.quality <= 1:
            raise ValueError(
                "head: expected proposals >= 1, proposal_nms and quality in [0, 1], got "
                f"{self.proposals}, {self.proposal_nms}, {self.quality}"
            )
        if not self.multibox_weight >= 0:
            raise ValueError(f"head.multibox_weight: expected at least 0, got {self.multibox_weight}")
        check_views(self.crop_share, self.crop_area, self.colour)
