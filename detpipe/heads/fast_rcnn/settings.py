"""Settings of Fast R-CNN, alone and together with MultiBox."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from detpipe.heads.multibox.settings import MultiBoxTargetConfig, check_views
from detpipe.heads.region_head import BoxLoss, BoxRegression, TrainedHeadConfig
from detpipe.tiles import TilesConfig


class Pooling(enum.Enum):
    """align (RoIAlign) samples the map with bilinear interpolation; pool (RoIPool) takes the maximum of each bin, whose
    borders are rounded to cells."""

    align = "align"
    pool = "pool"


MOST = {
    "pool_size": 64,
    "hidden": 65_536,
    "images_per_batch": 1024,
    "max_side": 16_384,
    "attention_heads": 256,
    "attention_width": 8192,
    "attention_hidden": 65_536,
}
"""Limits on settings: larger values, as in a damaged classifier.json, would fill the memory."""

MOST_LAYERS, MOST_COPIES = 16, 64
"""Limits on the attention layers, and on the denoising copies of each object."""


@dataclass(kw_only=True)
class FastRcnnConfig(TrainedHeadConfig):
    """Fast R-CNN: feature maps, region pooling, layers and losses. `flip` mirrors half of the training images."""

    maps: list[str] = field(default_factory=lambda: ["stride8", "stride16", "stride32"])
    """Feature maps of the backbone, fine to coarse. Each region is pooled from the map for its size."""
    merge_width: int | None = 96
    """Channels of the maps after a top-down merge (FPN). null: no merge; head.maps must then name a single map."""
    pooling: Pooling = Pooling.align
    """Region pooling: align (RoIAlign) or pool (RoIPool)."""
    pool_size: int = 7
    """Side of a pooled region in cells."""
    hidden: int = 512
    """Width of the two fully connected layers."""
    start_gain: float = 1 / 3
    """Gain of the initial weights of the two fully connected layers (variance = gain / fan_in): 2 is He initialisation,
    1/3 is PyTorch's default, which trained more reliably."""
    dropout: float = 0.0
    """Share of features dropped in training. 0 by default, because dropout makes boxes less accurate."""
    box_loss: BoxLoss = BoxLoss.giou
    """Box loss: smooth_l1 (as in the paper) or giou."""
    box_loss_weight: float = 10.0
    """Weight of the box loss relative to the class loss (lambda in the paper): 10 for giou, 1 for smooth_l1."""
    foreground_weight: float = 1.0
    """Class loss: the largest weight of a foreground region. With few objects in an image, less than sampling.fg_share
    of its regions are foreground. Their weight then rises until they have this share of the loss. 1: all regions count
    alike."""
    box_loss_beta: float = 1 / 9
    """smooth_l1: the normalised error above which the loss is linear. 1 in the paper; 1/9 in torchvision's and
    Detectron's Faster R-CNN, which gives more accurate boxes."""
    images_per_batch: int = 2
    """Images per batch (hierarchical sampling, section 2.3 of the paper). solver.batch_size counts their regions."""
    scales: list[int] = field(default_factory=lambda: [320, 352, 384])
    """Shorter side of the image in pixels: one at random in training, the last one in testing."""
    max_side: int = 640
    """Limit of the longer side in pixels."""
    attention: int = 0
    """Number of layers of attention among the regions of an image, after the two fully connected layers. 0: each region
    is classified by itself."""
    attention_heads: int = 4
    """Attention: number of heads."""
    attention_width: int = 128
    """Attention: width of queries, keys and values of all heads together."""
    attention_hidden: int = 256
    """Attention: width between the two fully connected layers of each attention layer."""
    best_weight: float = 0.1
    """Attention: weight of the loss of the logit "this region is the best box of its object" relative to the class
    loss. It is a sum per object, about ten times as large as the class loss, which is a mean over regions.
    detect.fast_rcnn.duplicates says how detection uses the logit."""
    denoise: int = 0
    """Attention: number of shifted copies and of false boxes per object and step that are learned beside the regions
    (Li et al. 2022, "DN-DETR"). They attend to each other only. 0: none."""
    refine: int = 1
    """Testing: number of times the top-scoring regions are moved by their deltas and scored again (Gidaris & Komodakis
    2015)."""
    refine_weight: float = 0.0
    """Weight of the loss of the second pass relative to the first: the regions are moved by their deltas, as for
    `refine`, and learned again. Steps then take longer. 0: no second pass."""
    tiles: TilesConfig = field(default_factory=TilesConfig)
    """Tiles of large images: random ones in training, all of them in detection."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maps, self.scales = list(self.maps), list(self.scales)
        if not self.maps or (self.merge_width is None and len(self.maps) > 1):
            raise ValueError(
                f"head.maps: expected one map, or several with head.merge_width=WIDTH, got {self.maps} and "
                f"head.merge_width={self.merge_width}"
            )
        if self.box_regression is BoxRegression.ridge:
            raise ValueError(
                "head.box_regression: expected joint or none for fast_rcnn, which trains it with the classes, got ridge"
            )
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"head.{name}: expected 1 to {most}, got {getattr(self, name)}")
        if not 0 <= self.attention <= MOST_LAYERS:
            raise ValueError(f"head.attention: expected 0 to {MOST_LAYERS} layers, got {self.attention}")
        if self.attention_width % self.attention_heads:
            raise ValueError(
                f"head.attention_width: expected a multiple of head.attention_heads={self.attention_heads}, got "
                f"{self.attention_width}"
            )
        if not 0 <= self.best_weight < math.inf:
            raise ValueError(f"head.best_weight: expected a number of at least 0, got {self.best_weight}")
        if not 0 <= self.denoise <= MOST_COPIES:
            raise ValueError(f"head.denoise: expected 0 to {MOST_COPIES} copies of each object, got {self.denoise}")
        if self.denoise and not self.attention:
            raise ValueError(
                f"head.denoise={self.denoise}: expected head.attention above 0 with it, got 0; leave it out"
            )
        if not 1 <= self.foreground_weight < math.inf:
            raise ValueError(f"head.foreground_weight: expected a number of at least 1, got {self.foreground_weight}")
        if not self.start_gain > 0:
            raise ValueError(f"head.start_gain: expected a number above 0, got {self.start_gain}")
        if not 0 <= self.refine_weight < math.inf:
            raise ValueError(f"head.refine_weight: expected a number of at least 0, got {self.refine_weight}")
        if self.refine_weight and self.box_regression is BoxRegression.none:
            raise ValueError(
                f"head.refine_weight={self.refine_weight}: expected head.box_regression=joint with it, got none; leave "
                "it out"
            )
        if self.refine < 0:
            raise ValueError(f"head.refine: expected at least 0, got {self.refine}")
        if self.merge_width is not None and not 1 <= self.merge_width <= MOST["hidden"]:
            raise ValueError(
                f"head.merge_width: expected 1 to {MOST['hidden']} channels or null, got {self.merge_width}"
            )
        if not self.scales or not 32 <= min(self.scales) <= max(self.scales) <= MOST["max_side"]:
            raise ValueError(f"head.scales: expected sides of 32 to {MOST['max_side']} pixels, got {self.scales}")


@dataclass(kw_only=True)
class MultiBoxFastRcnnConfig(FastRcnnConfig):
    """Fast R-CNN with MultiBox on the same feature maps: the network makes its own proposals."""

    multibox: MultiBoxTargetConfig = field(default_factory=lambda: MultiBoxTargetConfig(coarser=False))
    """Priors, matching and losses of the proposals."""
    multibox_weight: float = 1.0
    """Weight of the proposal loss relative to the Fast R-CNN loss."""
    proposals: int = 300
    """Training: number of the network's top-scoring proposals per image from which regions are sampled."""
    proposal_nms: float = 0.7
    """IoU threshold of non-maximum suppression of the proposals, in training and testing."""
    quality: float = 0.5
    """Testing: a region's score is p^(1 - quality) q^quality, where p is the class probability and q the confidence of
    the proposal, an estimate of its IoU with the object. 0 uses only p."""
    refine: int = 0
    """Testing: number of times the top-scoring regions are moved by their deltas and scored again. The preset
    multibox_fast_rcnn uses 1, which gives more accurate boxes."""
    crop_share: float = 0.0
    """Share of the training images that are cropped at random."""
    crop_area: float = 0.3
    """Smallest random crop, as a share of the image's area."""
    colour: float = 0.2
    """Strength of the random changes of brightness, contrast and saturation; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_width is None:
            raise ValueError(
                "head.merge_width: expected a width for multibox_fast_rcnn, which needs merged maps, got null"
            )
        if self.proposals < 1 or not 0 <= self.proposal_nms <= 1 or not 0 <= self.quality <= 1:
            raise ValueError(
                "head: expected proposals >= 1, proposal_nms and quality in [0, 1], got "
                f"{self.proposals}, {self.proposal_nms}, {self.quality}"
            )
        if not self.multibox_weight >= 0:
            raise ValueError(f"head.multibox_weight: expected at least 0, got {self.multibox_weight}")
        check_views(self.crop_share, self.crop_area, self.colour)
