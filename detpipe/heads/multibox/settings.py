"""The settings of MultiBox: its form, which prior answers for which object, by which losses, from which views."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detpipe.backbone.fine_tuning import FineTuningConfig
from detpipe.solver.lr_policy import LrPolicy
from detpipe.solver.solver_config import SolverConfig

GRIDS = (8, 6, 4, 3, 2)
"""Cells by side of the maps of MSC-MultiBox (Szegedy et al. 2014); one box of all the image joins them: 1,420 priors
with eleven a cell."""


class Form(enum.Enum):
    """What is predicted where.

    pyramid: at every cell of maps that are merged top-down. grids: at the cells of small grids that the last map is
    averaged to (MSC-MultiBox). whole: a fixed number of boxes from all of the last map (MultiBox of 2014).
    """

    pyramid = "pyramid"
    grids = "grids"
    whole = "whole"


class Matching(enum.Enum):
    """How many predictions an object has: one (bipartite), or all that are near enough."""

    bipartite = "bipartite"
    many_to_one = "many_to_one"


class MatchedBy(enum.Enum):
    """What is matched with objects: the priors, or the predicted boxes and their confidence (eq. 4 of 2014)."""

    prior = "prior"
    prediction = "prediction"


class Localization(enum.Enum):
    """The loss of the box: squared error of its corners (2014), smooth L1 of its deltas, or 1 - GIoU."""

    squared = "squared"
    smooth_l1 = "smooth_l1"
    giou = "giou"


class Confidence(enum.Enum):
    """The loss of the confidence: cross entropy (2014), focal loss, or quality: what is learned is the box's IoU."""

    cross_entropy = "cross_entropy"
    focal = "focal"
    quality = "quality"


def with_kinds(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them, with names made kinds again. Raises ValueError for a name that is none of a kind."""
    kinds: dict[str, type[enum.Enum]] = {
        "form": Form,
        "matching": Matching,
        "matched_by": MatchedBy,
        "localization": Localization,
        "confidence": Confidence,
    }
    return {name: kinds[name](value) if name in kinds else value for name, value in values.items()}


@dataclass(kw_only=True)
class MultiBoxTargetConfig:
    """How many priors, which of them answers for which object, and by which losses they learn."""

    priors: int = 9
    """Shapes of priors, each at every cell of the map that suits its size; of the form whole: boxes of an image."""
    cells: float = 6.0
    """pyramid: a shape is predicted from the map of which its side is nearest to so many cells (RPN on FPN has 8). More
    give large objects more priors, and boxes that are more exact; fewer give small ones maps that have seen more."""
    coarser: bool = True
    """pyramid: the largest shapes may be predicted from a map of twice the last one's stride. Without it they have more
    priors."""
    matching: Matching = Matching.many_to_one
    """bipartite or many_to_one."""
    matched_by: MatchedBy = MatchedBy.prior
    """prior or prediction."""
    positive_iou: float = 0.5
    """many_to_one: a prior is an object's at this IoU or more ..."""
    negative_iou: float = 0.4
    """... and background below this one."""
    at_least: int = 4
    """many_to_one: each object trains at least this many of its closest priors, even if none overlaps it by
    positive_iou. It always gets the best one; the others only where they don't overlap another object by positive_iou.
    0: an object may get no prior."""
    localization: Localization = Localization.giou
    """squared, smooth_l1 or giou."""
    confidence: Confidence = Confidence.quality
    """cross_entropy, focal or quality."""
    location_weight: float = 1.0
    """Weight of the box's loss beside the confidence's."""
    start_gain: float = 2.0
    """Variance of the first weights of the layer before the predictions, times the width below: 2 keeps the size of
    what passes through (He et al. 2015). Small ones let the first steps of a training do less harm."""
    negatives: int | None = None
    """Background priors that count for each object's: the ones with the largest loss (hard negatives); null: all."""

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
            raise ValueError("multibox.matched_by: prediction goes with matching=bipartite, as in the paper")
        if self.negatives is not None and self.negatives < 1:
            raise ValueError(
                f"multibox.negatives: expected at least 1 for each positive, or null, got {self.negatives}"
            )
        if not self.start_gain > 0:
            raise ValueError(f"multibox.start_gain: expected a number above 0, got {self.start_gain}")
        if not self.location_weight >= 0:
            raise ValueError(f"multibox.location_weight: expected at least 0, got {self.location_weight}")

    @property
    def by_corners(self) -> bool:
        """Whether moves are of corners, in sides of the input (2014), and not deltas of centre and size."""
        return self.localization is Localization.squared


@dataclass(kw_only=True)
class MultiBoxConfig(FineTuningConfig, MultiBoxTargetConfig):
    """The form of the network, what it learns from, and how its training images are shown."""

    form: Form = Form.pyramid
    """pyramid, grids (msc_multibox) or whole (multibox_2014)."""
    maps: list[str] = field(default_factory=lambda: ["stride8", "stride16", "stride32"])
    """Feature maps of the backbone, fine to coarse: pyramid merges them and adds one of twice the last stride; the
    other forms take the last one."""
    width: int = 96
    """Channels of the merged maps, and of the layer before the predictions."""
    hidden: int = 1024
    """whole: width of the layer that sees all of the image."""
    scales: list[int] = field(default_factory=lambda: [320, 352, 384])
    """Pixels of an image's shorter side in training, one at random; the last one in proposing. The forms grids and
    whole bring all images to a square of the last one."""
    max_side: int = 640
    """Pixels of the longer side at most."""
    start_gain: float = 0.1
    """Variance of the first weights of the layer before the predictions, times the width below: 2 keeps the size of
    what passes through (He et al. 2015); by a small one the first steps of a training do no harm."""
    calibrate: bool = False
    """After training, bring each prior's confidence to the share of its boxes that found an object."""
    flip: bool = True
    """Mirror half of the training images."""
    crop_share: float = 0.5
    """Share of the training images that are shown in part ..."""
    crop_area: float = 0.3
    """... of at least this share of their area."""
    colour: float = 0.2
    """Brightness, contrast and saturation vary by this share."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
        """Whether all images are brought to one square."""
        return self.form is not Form.pyramid

    @property
    def n_maps(self) -> int:
        """How many maps predict, each with shapes of its own."""
        return {Form.pyramid: len(self.maps) + 1, Form.grids: len(GRIDS) + 1, Form.whole: 1}[self.form]


def check_views(crop_share: float, crop_area: float, colour: float) -> None:
    """Raise ValueError for settings by which no image can be shown."""
    if not 0 <= crop_share <= 1 or not 0 < crop_area <= 1 or not 0 <= colour < 1:
        raise ValueError(
            "expected crop_share in [0, 1], crop_area in (0, 1], colour in [0, 1), got "
            f"{crop_share}, {crop_area}, {colour}"
        )


@dataclass(kw_only=True)
class MultiBoxSolverConfig(SolverConfig):
    """The solver's settings with the defaults of this training, whose examples are whole images."""

    max_iter: int = 400
    """Iterations of the whole training; 0 saves the network as it starts."""
    base_lr: float = 4e-4
    """The learning rate, before the policy and the groups' multipliers."""
    lr: LrPolicy = field(default_factory=lambda: LrPolicy(warmup_iter=100))
    """How the rate falls."""
    clip_gradients: float | None = 1.0
    """The largest L2 norm of the gradient; larger ones are scaled down to it."""
    new_lr_mult: float = 2.0
    """Learning rate of layers that start from nothing, over that of pretrained ones."""
    batch_size: int = 4
    """Images of one batch."""
