"""Base settings of region heads: for all heads, and for heads that are trained together with the backbone."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detpipe.backbone.fine_tuning import FineTuningConfig


class BoxLoss(enum.Enum):
    """The box loss: smooth L1 of the deltas (Fast R-CNN), or 1 - GIoU (Rezatofighi et al. 2019). The latter is closer
    to what average precision at high IoU thresholds measures."""

    smooth_l1 = "smooth_l1"
    giou = "giou"


class BoxRegression(enum.Enum):
    """Box regression: none, trained jointly with the classes, or ridge regression after the training."""

    none = "none"
    joint = "joint"
    ridge = "ridge"


@dataclass(kw_only=True)
class RegionHeadConfig:
    """Settings of all region heads: box regression."""

    TORCHRUN: ClassVar[bool] = True
    """Whether the head can be trained by several processes of torchrun."""
    STORED_FEATURES: ClassVar[bool] = False
    """Whether the head is trained on the stored features of a frozen network."""
    NEEDS_EACH: ClassVar[bool] = False
    """Whether each class must have objects; else a class without objects is never detected."""
    USES_CLASS_VECTORS: ClassVar[bool] = False
    """Whether it detects classes without objects by their vectors."""

    box_regression: BoxRegression = BoxRegression.ridge
    """Box regression: none, joint (trained with the classes) or ridge (ridge regression afterwards)."""
    ridge: float = 1000.0
    """box_regression=ridge: strength of the regularisation (lambda)."""
    ridge_iou: float = 0.6
    """box_regression=ridge: use regions whose IoU with their object is above this (R-CNN, appendix C)."""

    def __post_init__(self) -> None:
        if not self.ridge > 0 or not 0 <= self.ridge_iou < 1:
            raise ValueError(f"head: expected ridge > 0 and ridge_iou in [0, 1), got {self.ridge}, {self.ridge_iou}")

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise an error if the head cannot learn these classes, whatever the images show. Call it before any work."""


@dataclass(kw_only=True)
class TrainedHeadConfig(RegionHeadConfig, FineTuningConfig):
    """Settings of heads that are trained together with the backbone, and which parts of the backbone are frozen."""

    box_regression: BoxRegression = BoxRegression.joint
    """Box regression: none, joint (trained with the classes) or ridge (ridge regression afterwards)."""
    box_loss_weight: float = 1.0
    """Weight of the box loss relative to the class loss (lambda of Fast R-CNN)."""
    box_loss: BoxLoss = BoxLoss.smooth_l1
    """Box loss: smooth_l1 or giou. GIoU losses are about 10x smaller; use box_loss_weight=10."""
    box_loss_beta: float = 1.0
    """smooth_l1: the normalised error above which the loss is linear (1 in Fast R-CNN). Smaller values give more
    accurate boxes."""
    dropout: float = 0.2
    """Share of features dropped in training."""
    label_smoothing: float = 0.0
    """Label smoothing: the share of the target that is spread evenly over all classes."""
    flip: bool = True
    """Mirror half of the training crops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        FineTuningConfig.__post_init__(self)
        if not self.box_loss_weight >= 0:
            raise ValueError(f"head.box_loss_weight: expected at least 0, got {self.box_loss_weight}")
        if not 0 <= self.dropout < 1 or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"head: expected dropout and label_smoothing in [0, 1), got {self.dropout} and {self.label_smoothing}"
            )
        if not self.box_loss_beta > 0:
            raise ValueError(f"head.box_loss_beta: expected a number above 0, got {self.box_loss_beta}")
