"""Settings of MultiBox: form, priors, matching, losses and augmentation."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from detpipe.backbone.fine_tuning import FineTuningConfig
from detpipe.solver.lr_policy import LrPolicy
from detpipe.solver.solver_config import SolverConfig
from detpipe.tiles import TilesConfig

GRIDS = (8, 6, 4, 3, 2)
"""Cells per side of the maps of MSC-MultiBox (Szegedy et al. 2014). With eleven priors per cell and one prior for the
whole image there are 1,420 priors."""


class Form(enum.Enum):
    """The form of the network.

    pyramid: predictions at each cell of maps that are merged top-down (FPN). grids: predictions at the cells of small
    grids that are pooled from the last map (MSC-MultiBox). whole: a fixed number of boxes, predicted by a fully
    connected layer from the whole last map (MultiBox of 2014).
    """

    pyramid = "pyramid"
    grids = "grids"
    whole = "whole"


class Matching(enum.Enum):
    """How many priors are matched with an object: one (bipartite), or all that overlap it enough (many_to_one)."""

    bipartite = "bipartite"
    many_to_one = "many_to_one"


class MatchedBy(enum.Enum):
    """What is matched with objects: the priors, or the predicted boxes and confidences (Erhan et al. 2014, eq. 4)."""

    prior = "prior"
    prediction = "prediction"


class Localization(enum.Enum):
    """The box loss: squared error of the corners (Erhan et al. 2014), smooth L1 of the deltas, or 1 - GIoU."""

    squared = "squared"
    smooth_l1 = "smooth_l1"
    giou = "giou"


class Confidence(enum.Enum):
    """The confidence loss: cross entropy (Erhan et al. 2014), focal loss, or quality, whose target is the box's IoU."""

    cross_entropy = "cross_entropy"
    focal = "focal"
    quality = "quality"


@dataclass(kw_only=True)
class MultiBoxTargetConfig:
    """Priors, matching and losses."""

    priors: int = 9
    """Number of prior shapes. Each shape is used at every cell of one feature map, chosen by its size. With form=whole:
    the number of boxes per image."""
    cells: float = 6.0
    """pyramid: a prior is put on the feature map where it spans about this many cells (RPN on FPN: 8). A larger value
    gives large objects more priors and tighter boxes; a smaller one moves small objects to maps with more context."""
    coarser: bool = True
    """pyramid: add one coarser map, with twice the last stride, for very large objects. Without it these objects have
    more priors."""
    matching: Matching = Matching.many_to_one
    """How priors are assigned to objects: bipartite (one prior per object) or many_to_one (by IoU)."""
    matched_by: MatchedBy = MatchedBy.prior
    """What is compared with the objects in matching: the prior, or the prediction (bipartite only)."""
    positive_iou: float = 0.5
    """many_to_one: a prior with at least this IoU with an object is assigned to it."""
    negative_iou: float = 0.4
    """many_to_one: a prior whose IoU with every object is below this is background. Priors between negative_iou and
    positive_iou are ignored."""
    at_least: int = 4
    """many_to_one: each object trains at least this many of its closest priors, even if none overlaps it by
    positive_iou. It always gets the best one; the others only where they don't overlap another object by positive_iou.
    0: an object may get no prior."""
    localization: Localization = Localization.giou
    """Box loss: squared (error of the corners), smooth_l1 (of the deltas) or giou (1 - GIoU)."""
    confidence: Confidence = Confidence.quality
    """Confidence loss: cross_entropy, focal, or quality (the target is the IoU of the predicted box)."""
    location_weight: float = 1.0
    """Weight of the box loss relative to the confidence loss."""
    start_gain: float = 2.0
    """Gain of the initial weights of the layer before the predictions (variance = gain / fan_in): 2 is He
    initialisation; smaller values start training more gently."""
    negatives: int | None = None
    """Hard negative mining: use only this many background priors per matched prior, those with the largest loss.
    null: use all."""

    def __post_init__(self) -> None:
        if self.priors < 1:
            raise ValueError(f"multibox.priors: expected at least 1, got {self.priors}")
        if not self.cells > 0:
            raise ValueError(f"multibox.cells: expected a number above 0, got {self.cells}")
        if not 0 <= self.negative_iou <= self.positive_iou <= 1 or self.at_least < 0:
            raise ValueError(
                "multibox: expected 0 <= negative_iou <= positive_iou <= 1 and at_least >= 0, got "
                f"{self.negative_iou}, {self.positive_iou}, {self.at_least}"
            )
        if self.matched_by is MatchedBy.prediction and self.matching is not Matching.bipartite:
            raise ValueError(
                f"multibox.matched_by: prediction needs multibox.matching=bipartite, got "
                f"{self.matching.value}; set it, or multibox.matched_by=prior"
            )
        if self.negatives is not None and self.negatives < 1:
            raise ValueError(f"multibox.negatives: expected at least 1 per positive, or null, got {self.negatives}")
        if not self.start_gain > 0:
            raise ValueError(f"multibox.start_gain: expected a number above 0, got {self.start_gain}")
        if not self.location_weight >= 0:
            raise ValueError(f"multibox.location_weight: expected at least 0, got {self.location_weight}")

    @property
    def by_corners(self) -> bool:
        """Whether deltas are differences of the corners (Erhan et al. 2014) instead of deltas of centre and size."""
        return self.localization is Localization.squared


@dataclass(kw_only=True)
class MultiBoxConfig(FineTuningConfig, MultiBoxTargetConfig):
    """The form of the network, its priors, matching and losses, and the augmentation."""

    form: Form = Form.pyramid
    """Form of the network: pyramid (FPN), grids (msc_multibox) or whole (multibox_2014)."""
    maps: list[str] = field(default_factory=lambda: ["stride8", "stride16", "stride32"])
    """Feature maps of the backbone, fine to coarse. pyramid merges them and adds a coarser one; the other forms use
    only the last one."""
    width: int = 96
    """Channels of the merged maps and of the layer before the predictions."""
    hidden: int = 1024
    """whole: width of the fully connected layer."""
    scales: list[int] = field(default_factory=lambda: [320, 352, 384])
    """Shorter side of the image in pixels: one at random in training, the last one in inference. The forms grids and
    whole resize images to a square of the last one."""
    max_side: int = 640
    """Limit of the longer side in pixels."""
    start_gain: float = 0.1
    """Gain of the initial weights of the layer before the predictions (variance = gain / fan_in): 2 is He
    initialisation; smaller values start training more gently."""
    calibrate: bool = False
    """After training, calibrate the confidences to the probability that a box has IoU >= 0.5 with an object."""
    flip: bool = True
    """Mirror half of the training images."""
    crop_share: float = 0.5
    """Share of the training images that are cropped at random."""
    crop_area: float = 0.3
    """Smallest random crop, as a share of the image's area."""
    colour: float = 0.2
    """Strength of the random changes of brightness, contrast and saturation; 0 for none."""
    tiles: TilesConfig = field(default_factory=TilesConfig)
    """Training on random tiles of large images. To propose on tiles, use proposals=tiled."""

    def __post_init__(self) -> None:
        super().__post_init__()
        MultiBoxTargetConfig.__post_init__(self)
        self.maps, self.scales = list(self.maps), list(self.scales)
        if not self.maps or not self.scales or min(self.scales) < 32:
            raise ValueError(
                f"multibox: expected maps, and scales of at least 32 pixels, got {self.maps}, {self.scales}"
            )
        for name in ("width", "hidden", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"multibox.{name}: expected at least 1, got {getattr(self, name)}")
        check_views(self.crop_share, self.crop_area, self.colour)

    @property
    def square(self) -> bool:
        """Whether all images are resized to the same square."""
        return self.form is not Form.pyramid

    @property
    def n_maps(self) -> int:
        """The number of maps with predictions, each with its own shapes."""
        return {Form.pyramid: len(self.maps) + 1, Form.grids: len(GRIDS) + 1, Form.whole: 1}[self.form]


def check_views(crop_share: float, crop_area: float, colour: float) -> None:
    """Raise ValueError for invalid settings of augmentation."""
    if not 0 <= crop_share <= 1 or not 0 < crop_area <= 1 or not 0 <= colour < 1:
        raise ValueError(
            "expected crop_share in [0, 1], crop_area in (0, 1], colour in [0, 1), got "
            f"{crop_share}, {crop_area}, {colour}"
        )


@dataclass(kw_only=True)
class MultiBoxSolverConfig(SolverConfig):
    """The solver's settings with the defaults for MultiBox, which trains on whole images."""

    max_iter: int = 400
    """Number of training iterations. 0 saves the network with its initial weights."""
    base_lr: float = 4e-4
    """Base learning rate, before the schedule and the multipliers of parameter groups."""
    lr: LrPolicy = field(default_factory=lambda: LrPolicy(warmup_iter=100))
    """Learning rate schedule."""
    clip_gradients: float | None = 1.0
    """Largest L2 norm of the gradient; larger gradients are scaled down to it."""
    new_lr_mult: float = 2.0
    """Learning rate multiplier of layers with random initial weights, relative to pretrained layers."""
    batch_size: int = 4
    """Images per batch."""
