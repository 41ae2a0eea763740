"""MultiBox and Fast R-CNN on one set of maps: where might things be, and what are they, from one pass over the image.

N: images. R: regions. K: classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.heads.fast_rcnn import FastRcnn, FastRcnnHead
from detpipe.heads.multibox import MultiBoxPredictor, Output, best_boxes
from detpipe.heads.multibox_necks import with_coarser
from detpipe.heads.multibox_settings import MultiBoxTargets, check_views
from detpipe.structures import Float32Array


@dataclass(kw_only=True)
class MultiBoxFastRcnnHead(FastRcnnHead):
    """Fast R-CNN that proposes for itself."""

    multibox: MultiBoxTargets = field(default_factory=lambda: MultiBoxTargets(coarser=False))
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
            raise ValueError("head.merge_width: multibox_fast_rcnn merges its maps: wanted a width, got null")
        if self.proposals < 1 or not 0 <= self.proposal_nms <= 1 or not 0 <= self.quality <= 1:
            raise ValueError(
                "head: wanted proposals >= 1, proposal_nms and quality in [0, 1], got "
                f"{self.proposals}, {self.proposal_nms}, {self.quality}"
            )
        if not self.multibox_weight >= 0:
            raise ValueError(f"head.multibox_weight: wanted at least 0, got {self.multibox_weight}")
        check_views(self.crop_share, self.crop_area, self.colour)


class MultiBoxFastRcnn(FastRcnn):
    """A Fast R-CNN whose maps also give the regions.

    shapes: of each map, and of one that is coarser, the priors (A, 4). Raises ValueError for those of another number of
    maps.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        config: MultiBoxFastRcnnHead,
        shapes: Sequence[Float32Array],
        *,
        seed: int,
    ) -> None:
        super().__init__(backbone, n_classes, config, seed=seed)
        if len(shapes) != len(self.maps) + 1:
            raise ValueError(f"wanted shapes of priors for {len(self.maps) + 1} maps, got {len(shapes)}")
        self.proposal_nms, self.quality = config.proposal_nms, config.quality
        self.predictor = MultiBoxPredictor(
            self.depth,
            self.depth,
            shapes,
            by_corners=config.multibox.by_corners,
            generator=torch.Generator().manual_seed(seed),
            start_gain=config.multibox.start_gain,
        )

    @property
    def new_modules(self) -> list[nn.Module]:
        """The layers that start from nothing."""
        return [*super().new_modules, self.predictor]

    def predict(self, maps: Sequence[Tensor], input_size: tuple[int, int]) -> Output:
        """Maps of `feature_maps` and the input's (height, width), a multiple of the coarsest stride -> predictions."""
        output: Output = self.predictor(with_coarser(maps), input_size)
        return output

    def propose(self, output: Output, place: int, image_size: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
        """The best boxes of image number `place` of the batch, in pixels of the input, and their confidences.

        image_size: (height, width) of what of the input is image.
        """
        with torch.no_grad():
            boxes = self.predictor.boxes(output)[place]
            logits = output.logits[place].detach()
            return best_boxes(boxes, logits, image_size, count=count, nms_iou=self.proposal_nms)
