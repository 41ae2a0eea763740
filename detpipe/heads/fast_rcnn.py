"""Fast R-CNN (Girshick 2015): the network runs once on the image, and regions are pooled from its feature maps.

N: images. R: regions. K: classes. C: channels of a map, P: side of a pooled region.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from detpipe.backbone.backbone import Backbone
from detpipe.heads.bbox_regressor import BoxLoss, BoxRegressor
from detpipe.heads.region_head import BoxRegression, HeadConfig
from detpipe.heads.roi_pooling import Pooling, pool_regions
from detpipe.heads.softmax import SoftmaxHead


@dataclass(kw_only=True)
class FastRcnnHead(HeadConfig):
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
                f"head.maps: wanted one map, or several with head.merge_width=WIDTH, got {self.maps} without"
            )
        if self.box_regression is BoxRegression.ridge:
            raise ValueError(
                "head.box_regression: fast_rcnn trains it with the classes: wanted joint or none, got ridge"
            )
        for name in ("pool_size", "hidden", "images_per_batch", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"head.{name}: wanted at least 1, got {getattr(self, name)}")
        if not self.start_gain > 0:
            raise ValueError(f"head.start_gain: wanted a number above 0, got {self.start_gain}")
        if self.refine < 0:
            raise ValueError(f"head.refine: wanted a number from 0, got {self.refine}")
        if self.merge_width is not None and self.merge_width < 1:
            raise ValueError(f"head.merge_width: wanted at least 1 channel or null, got {self.merge_width}")
        if not self.scales or min(self.scales) < 32:
            raise ValueError(f"head.scales: wanted sides of at least 32 pixels, got {self.scales}")


class FastRcnn(nn.Module):
    """Images and regions -> logits (R, K + 1) and deltas (R, K, 4), by one pass over each image.

    depth: channels of a pooled region.

    New layers start from `seed`; the backbone's weights are the caller's. Raises ValueError for a map that the backbone
    hasn't.
    """

    def __init__(self, backbone: Backbone, n_classes: int, config: FastRcnnHead, *, seed: int) -> None:
        super().__init__()
        backbone.check_map_names(config.maps)
        generator = torch.Generator().manual_seed(seed)
        self.backbone = backbone
        self.backbone.classifier = None  # ImageNet's own head, which no gradient would reach
        self.maps = tuple(config.maps)
        self.strides = tuple(backbone.feature_maps[name].stride for name in config.maps)
        if list(self.strides) != sorted(self.strides):
            raise ValueError(f"head.maps: wanted fine to coarse, got {config.maps} of strides {list(self.strides)}")
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

    @property
    def new_modules(self) -> list[nn.Module]:
        """The layers that start from nothing."""
        made = [self.merge, self.fc1, self.fc2, self.head, self.box_regressor]
        return [module for module in made if module is not None]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(N, H, W, 3) uint8 RGB -> the maps that regions are pooled from, fine to coarse."""
        maps = self.backbone.forward_maps(self.backbone.spec.to_input(images), self.maps)
        if self.merge is None:
            return list(maps.values())
        return list(self.merge(OrderedDict(maps)).values())

    def pool(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Maps and (R, 5) regions (image, x1, y1, x2, y2) in input pixels -> (R, C, P, P)."""
        return pool_regions(maps, self.strides, regions, pooling=self.pooling, size=self.pool_size)

    def classify(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """(R, C, P, P) -> logits (R, K + 1), and deltas (R, K, 4) or None without regression."""
        hidden = self.dropout(F.relu(self.fc1(pooled.flatten(1))))
        features = self.dropout(F.relu(self.fc2(hidden)))
        return self.head(features), self.box_regressor(features) if self.box_regressor is not None else None

    def forward(self, images: Tensor, regions: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, H, W, 3) uint8, (R, 5) -> logits (R, K + 1), deltas (R, K, 4) or None without box regression."""
        return self.classify(self.pool(self.feature_maps(images), regions))


def linear_layer(width_in: int, width_out: int, generator: torch.Generator, gain: float = 2.0) -> nn.Linear:
    """Weights of variance gain / width_in: 2 where a ReLU follows (He et al. 2015, eq. 10)."""
    layer = nn.Linear(width_in, width_out)
    nn.init.normal_(layer.weight, std=(gain / width_in) ** 0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def draw_convolutions(network: nn.Module, generator: torch.Generator) -> None:
    """FPN's convolutions anew, from `generator`: torchvision draws them from the global one."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
