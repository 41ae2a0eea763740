"""Fast R-CNN (Girshick 2015): the backbone runs once per image, and regions are pooled from its feature maps.

N: number of images. R: number of regions. K: number of classes. C: channels of a map. P: side of a pooled region.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from detpipe.backbone.backbone import Backbone
from detpipe.heads.bbox_regressor import BoxRegressor
from detpipe.heads.fast_rcnn.linear import linear_layer
from detpipe.heads.fast_rcnn.region_attention import RegionAttention
from detpipe.heads.fast_rcnn.roi_pooling import pool_regions
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.region_head import BoxRegression
from detpipe.heads.softmax import SoftmaxHead

BEST_STD, BEST_BIAS = 0.01, math.log(0.01 / 0.99)
"""Initial weights of the logit of the best box. At first, few regions are the best box of an object."""


class RegionOutputs(NamedTuple):
    """The predictions for R regions.

    logits: (R, K + 1). deltas: (R, K, 4); None without box regression. best: (R,) the logit that the region is the best
    box of its object; None without attention.
    """

    logits: Tensor
    deltas: Tensor | None
    best: Tensor | None

    def of(self, rows: Tensor | slice) -> RegionOutputs:
        """The predictions for some regions."""
        deltas, best = (None if one is None else one[rows] for one in (self.deltas, self.best))
        return RegionOutputs(self.logits[rows], deltas, best)


class FastRcnn(nn.Module):
    """Predicts logits (R, K + 1) and deltas (R, K, 4) for regions, with one pass over each image.

    New layers are initialised from `seed`. Raises ValueError for a feature map that the backbone does not have, and if
    the maps are not ordered fine to coarse. Attributes depth: channels of a pooled region; attention, best: the layers
    of attention and of the logit of the best box, None for `attention=0`.
    """

    def __init__(self, backbone: Backbone, n_classes: int, config: FastRcnnConfig, *, seed: int) -> None:
        super().__init__()
        backbone.check_map_names(config.maps)
        generator = torch.Generator().manual_seed(seed)
        self.backbone = backbone
        self.backbone.classifier = None  # the unused ImageNet classifier would get no gradient
        self.maps = tuple(config.maps)
        self.strides = tuple(backbone.feature_maps[name].stride for name in config.maps)
        if list(self.strides) != sorted(self.strides):
            raise ValueError(
                f"head.maps: expected maps from fine to coarse, got {config.maps} with strides {list(self.strides)}"
            )
        self.pooling, self.pool_size = config.pooling, config.pool_size
        depths = [backbone.feature_maps[name].channels for name in config.maps]
        self.merge = None
        if config.merge_width is not None:
            self.merge = FeaturePyramidNetwork(depths, config.merge_width)
            draw_convolutions(self.merge, generator)
        self.depth = config.merge_width or depths[0]
        self.fc1: nn.Module = linear_layer(
            self.depth * config.pool_size**2, config.hidden, generator, config.start_gain
        )
        self.fc2: nn.Module = linear_layer(config.hidden, config.hidden, generator, config.start_gain)
        self.dropout = nn.Dropout(config.dropout)
        self.head = SoftmaxHead(config.hidden, n_classes + 1, generator=generator)
        joint = config.box_regression is BoxRegression.joint
        self.box_regressor = BoxRegressor(config.hidden, n_classes, generator=generator) if joint else None
        self.attention: RegionAttention | None = None
        self.best: nn.Linear | None = None
        if config.attention:
            self.attention = RegionAttention(
                config.hidden,
                layers=config.attention,
                heads=config.attention_heads,
                width=config.attention_width,
                hidden=config.attention_hidden,
                generator=generator,
            )
            self.best = linear_layer(config.hidden, 1, generator, config.hidden * BEST_STD**2)
            nn.init.constant_(self.best.bias, BEST_BIAS)

    @property
    def attention_layers(self) -> int:
        """The number of layers of attention among the regions of an image."""
        return 0 if self.attention is None else len(self.attention.layers)

    @property
    def new_modules(self) -> list[nn.Module]:
        """The layers with random initial weights."""
        made = [self.merge, self.fc1, self.fc2, self.head, self.box_regressor, self.attention, self.best]
        return [module for module in made if module is not None]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(N, H, W, 3) uint8 RGB -> the maps for region pooling, fine to coarse."""
        maps = self.backbone.forward_maps(self.backbone.spec.to_input(images), self.maps)
        if self.merge is None:
            return list(maps.values())
        return list(self.merge(OrderedDict(maps)).values())

    def pool(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Maps, and regions (R, 5) as (image index, x1, y1, x2, y2) in input pixels -> (R, C, P, P)."""
        return pool_regions(maps, self.strides, regions, pooling=self.pooling, size=self.pool_size)

    def hidden(self, pooled: Tensor) -> Tensor:
        """Pooled regions (R, C, P, P) -> features (R, D) before attention."""
        features: Tensor = self.dropout(F.relu(self.fc2(self.dropout(F.relu(self.fc1(pooled.flatten(1)))))))
        return features

    def attended(self, features: Tensor, regions: Tensor | None, sets: Tensor | None = None) -> Tensor:
        """Features (R, D) of regions (R, 5) -> features (R, D) after attention. Without attention they do not change.

        regions: may be None without attention. sets: (R,) regions attend only to regions with the same number; None:
        to regions of the same image. Raises ValueError for a network with attention and no regions.
        """
        if self.attention is None:
            return features
        if regions is None:
            raise ValueError("classify: expected the regions of a network with head.attention above 0, got none")
        changed: Tensor = self.attention(features, regions[:, 1:], regions[:, 0] if sets is None else sets)
        return changed

    def outputs(self, features: Tensor) -> RegionOutputs:
        """Features (R, D) -> what the network predicts for each region."""
        deltas = self.box_regressor(features) if self.box_regressor is not None else None
        best = self.best(features).squeeze(1) if self.best is not None else None
        return RegionOutputs(self.head(features), deltas, best)

    def classify(self, pooled: Tensor, regions: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(R, C, P, P), (R, 5) -> logits (R, K + 1), and deltas (R, K, 4) or None without box regression.

        regions: all of their images; only a network with attention needs them.
        """
        outputs = self.outputs(self.attended(self.hidden(pooled), regions))
        return outputs.logits, outputs.deltas

    def forward(self, images: Tensor, regions: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, H, W, 3) uint8, (R, 5) -> logits (R, K + 1), deltas (R, K, 4) or None without box regression."""
        return self.classify(self.pool(self.feature_maps(images), regions), regions)


def draw_convolutions(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise the convolutions of an FPN again, from `generator`: torchvision uses the global generator."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
