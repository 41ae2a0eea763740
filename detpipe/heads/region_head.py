"""The settings of what stands on a backbone: those of all heads of regions, those of heads that train with it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

from detpipe.backbone.fine_tuning import FineTuningConfig


class BoxLoss(enum.Enum):
    """How far a box is from its object: the smooth L1 distance of deltas (Fast R-CNN), or one less the generalized IoU
    (Rezatofighi et al. 2019), which asks for what average precision at a high IoU asks for."""

    smooth_l1 = "smooth_l1"
    giou = "giou"


class BoxRegression(enum.Enum):
    """How boxes are moved onto objects: not, with the classes in one training, or by ridge regression after it."""

    none = "none"
    joint = "joint"
    ridge = "ridge"


@dataclass(kw_only=True)
class RegionHeadConfig:
    """What every head of regions has: a regression of boxes, or none."""

    TORCHRUN: ClassVar[bool] = True
    """Whether several processes of torchrun can share its training."""
    STORED_FEATURES: ClassVar[bool] = False
    """Whether it trains on the stored features of a frozen network."""

    box_regression: BoxRegression = BoxRegression.ridge
    """How boxes are refined."""
    ridge: float = 1000.0
    """ridge: the regularisation."""
    ridge_iou: float = 0.6
    """ridge: regions that overlap their object by more than this teach the regression (R-CNN, appendix C)."""

    def __post_init__(self) -> None:
        if not self.ridge > 0 or not 0 <= self.ridge_iou < 1:
            raise ValueError(f"head: expected ridge > 0 and ridge_iou in [0, 1), got {self.ridge}, {self.ridge_iou}")


@dataclass(kw_only=True)
class TrainedHeadConfig(RegionHeadConfig, FineTuningConfig):
    """A head that is trained with the backbone below it, and what of the backbone learns."""

    box_regression: BoxRegression = BoxRegression.joint
    """How boxes are refined."""
    box_loss_weight: float = 1.0
    """Weight of the box loss beside the classes' (Fast R-CNN's lambda)."""
    box_loss: BoxLoss = BoxLoss.smooth_l1
    """smooth_l1 or giou. The second is smaller by an order: it wants box_loss_weight 10."""
    box_loss_beta: float = 1.0
    """Error of a box, in spreads of the deltas, from which on its loss is L1: 1 in Fast R-CNN. A small one asks for
    exact boxes."""
    dropout: float = 0.2
    """Share of features dropped in training."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""
    flip: bool = True
    """Mirror half of the training crops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1 or not 0 <= self.label_smoothing < 1:
            raise ValueError("head: expected dropout and label_smoothing in [0, 1)")
        if not self.box_loss_beta > 0:
            raise ValueError(f"head.box_loss_beta: expected a number above 0, got {self.box_loss_beta}")
