"""MultiBox and Fast R-CNN on one set of maps: where might things be, and what are they, from one pass over the image.

N: images. R: regions. K: classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox.necks import with_coarser
from detpipe.heads.multibox.network import MultiBoxPredictor, Output, best_boxes
from detpipe.structures import Float32Array


class MultiBoxFastRcnn(FastRcnn):
    """A Fast R-CNN whose maps also give the regions.

    shapes: of each map, and of one that is coarser, the priors (A, 4). Raises ValueError for those of another number of
    maps.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        config: MultiBoxFastRcnnConfig,
        shapes: Sequence[Float32Array],
        *,
        seed: int,
    ) -> None:
        super().__init__(backbone, n_classes, config, seed=seed)
        if len(shapes) != len(self.maps) + 1:
            raise ValueError(f"expected shapes of priors for {len(self.maps) + 1} maps, got {len(shapes)}")
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
