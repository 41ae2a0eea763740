"""MultiBox and Fast R-CNN on the same feature maps: proposals and detections from one pass over the image.

N: number of images. R: number of regions. K: number of classes.
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
    """Fast R-CNN whose regions are predicted from its own maps.

    shapes: the prior shapes (A, 4) of each map and of one coarser map. Raises ValueError if their number does not fit.
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
            raise ValueError(f"multibox: expected prior shapes for {len(self.maps) + 1} maps, got {len(shapes)}")
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
        """The layers with random initial weights."""
        return [*super().new_modules, self.predictor]

    def predict(self, maps: Sequence[Tensor], input_size: tuple[int, int]) -> Output:
        """Predict proposals from the maps of `feature_maps`.

        input_size: (height, width) in pixels, multiples of the coarsest stride.
        """
        output: Output = self.predictor(with_coarser(maps), input_size)
        return output

    def propose(self, output: Output, index: int, image_size: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
        """The top-scoring boxes (k, 4) of image number `index` of the batch and their confidences (k,), k <= count.

        Boxes are in pixels of the input. image_size: (height, width) of the image without padding.
        """
        with torch.no_grad():
            logits = output.logits[index].detach()
            boxes = self.predictor.boxes(output._replace(deltas=output.deltas[index].detach()))
            return best_boxes(boxes, logits, image_size, count=count, nms_iou=self.proposal_nms)
