"""The network of R-CNN: a backbone, a softmax head and a class-wise box regressor. It scores crops and predicts deltas.

N: regions, S: side of a crop, K: classes, D: feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_from_seed, seeded
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.classify.crops.settings import CropConfig
from detpipe.heads.bbox_regressor import BoxRegressor
from detpipe.heads.softmax import SoftmaxHead


class RcnnNetwork(nn.Module):
    """(N, S, S, 3) uint8 RGB crops -> logits (N, K + 1) and deltas (N, K, 4).

    New layers are initialised from `seed`; the backbone keeps its weights.
    """

    def __init__(self, backbone: Backbone, n_classes: int, *, box_regression: bool, dropout: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.backbone = backbone
        self.backbone.classifier = None  # the unused ImageNet head, which would get no gradient
        self.dropout = nn.Dropout(dropout)
        self.head = SoftmaxHead(backbone.feature_width, n_classes + 1, generator=generator)
        self.box_regressor = (
            BoxRegressor(backbone.feature_width, n_classes, generator=generator) if box_regression else None
        )

    def features(self, crops: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 -> (N, D)."""
        features: Tensor = self.backbone(self.backbone.spec.to_input(crops))
        return features

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K + 1), and deltas (N, K, 4) or None without box regression."""
        features = self.dropout(self.features(crops))
        return self.head(features), self.box_regressor(features) if self.box_regressor is not None else None


@dataclass(frozen=True, kw_only=True)
class RcnnSpec(RegionSpec):
    """The description of an R-CNN. crops: how regions were cropped. box_regression: whether it predicts deltas."""

    KIND: ClassVar[str] = "crops"

    crops: CropConfig
    box_regression: bool


def build_rcnn(spec: RcnnSpec, *, seed: int, pretrained: bool, dropout: float = 0.0) -> RcnnNetwork:
    """Build the network of a description.

    pretrained: load the backbone's pretrained weights; else they are loaded later.
    """
    backbone = create_from_seed(spec.backbone, seed, pretrained=pretrained)
    with seeded(seed):
        return RcnnNetwork(backbone, len(spec.classes), box_regression=spec.box_regression, dropout=dropout, seed=seed)
