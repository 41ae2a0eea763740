"""MultiBox, a network for class-agnostic proposals (Erhan et al. 2014; Szegedy et al. 2014, "Scalable, high-quality
object detection"). For each prior it predicts a logit that an object is there and the deltas from prior to object.

N: number of images. P: number of priors in an image. A: number of priors in a cell. C: channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detpipe import boxes as geometry
from detpipe.backbone.backbone import Backbone
from detpipe.heads.multibox.necks import make_neck
from detpipe.heads.multibox.priors import by_stride, centred, grid_shapes, kmeans_boxes, kmeans_sizes, prior_boxes
from detpipe.heads.multibox.settings import GRIDS, Form, MultiBoxConfig, MultiBoxTargetConfig
from detpipe.structures import Float32Array


class Output(NamedTuple):
    """The predictions for a batch.

    logits: (N, P). deltas: (N, P, 4). priors: (P, 4), pixels of the input. shape_index: (P,) int64, the index of each
    prior's shape in `MultiBoxPredictor.shapes`. input_size: (height, width) in pixels.
    """

    logits: Tensor
    deltas: Tensor
    priors: Tensor
    shape_index: Tensor
    input_size: tuple[int, int]


class MultiBoxPredictor(nn.Module):
    """Predicts logits and deltas from feature maps, by a layer that all maps share and one layer per map.

    depth: channels of the maps. width: channels of the shared layer. shapes: for each map its prior shapes (A, 4),
    boxes relative to the centre of a cell; a map with A = 0 is not used. start_gain: gain of the shared layer's initial
    weights (variance = gain / fan_in).
    """

    def __init__(
        self,
        depth: int,
        width: int,
        shapes: Sequence[Float32Array],
        *,
        by_corners: bool,
        generator: torch.Generator,
        start_gain: float = 2.0,
    ) -> None:
        super().__init__()
        self.by_corners = by_corners
        self.counts = tuple(len(one) for one in shapes)
        self.register_buffer("shapes", torch.from_numpy(np.concatenate(list(shapes)).reshape(-1, 4)))
        # Slope and offset of each shape's logit (Platt scaling, Platt 1999); 1 and 0 until they are fitted.
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0]]).repeat(sum(self.counts), 1))
        self.shared = nn.Conv2d(depth, width, 3, padding=1)
        nn.init.normal_(self.shared.weight, std=(start_gain / (9 * depth)) ** 0.5, generator=generator)
        nn.init.zeros_(_bias(self.shared))
        self.outputs = nn.ModuleList(
            _output(width, count, generator) if count else nn.Identity() for count in self.counts
        )

    shapes: Tensor
    calibration: Tensor

    def forward(self, maps: Sequence[Tensor], input_size: tuple[int, int]) -> Output:
        """Maps (N, C, h, w), and the (height, width) of the input in pixels -> predictions of all maps in order."""
        logits, deltas, priors, shape_index = [], [], [], []
        indices = torch.arange(len(self.shapes), device=self.shapes.device).split(self.counts)
        by_map = zip(
            maps,
            self.outputs,
            self.shapes.split(self.counts),
            self.calibration.split(self.counts),
            indices,
            strict=True,
        )
        for one, output, shapes, calibration, own in by_map:
            if not len(shapes):
                continue
            predicted = output(F.relu(self.shared(one))).float().permute(0, 2, 3, 1)
            predicted = predicted.reshape(len(one), one.shape[2] * one.shape[3], len(shapes), 5)
            logits.append((predicted[..., 0] * calibration[:, 0] + calibration[:, 1]).flatten(1))
            deltas.append(predicted[..., 1:].flatten(1, 2))
            priors.append(prior_boxes(shapes, (one.shape[2], one.shape[3]), input_size))
            shape_index.append(own.repeat(one.shape[2] * one.shape[3]))
        return Output(
            torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(priors), torch.cat(shape_index), input_size
        )

    def boxes(self, output: Output) -> Tensor:
        """The predicted boxes (N, P, 4) in pixels of the input, not clipped."""
        return decode(output, by_corners=self.by_corners)


class MultiBox(nn.Module):
    """The whole network: backbone, neck and predictor. New layers are initialised from `seed`.

    shapes: the prior shapes of each map (see `make_shapes`). Raises ValueError for a feature map that the backbone
    does not have, and if the number of maps in `shapes` does not fit the form.
    """

    def __init__(
        self, backbone: Backbone, config: MultiBoxConfig, shapes: Sequence[Float32Array], *, seed: int
    ) -> None:
        super().__init__()
        backbone.check_map_names(config.maps)
        if len(shapes) != config.n_maps:
            raise ValueError(f"multibox: expected prior shapes for {config.n_maps} maps, got {len(shapes)}")
        generator = torch.Generator().manual_seed(seed)
        self.backbone = backbone
        self.backbone.classifier = None  # the unused ImageNet classifier would get no gradient
        self.neck = make_neck(backbone, config, generator)
        depth = config.hidden if config.form is Form.whole else config.width
        self.predictor = MultiBoxPredictor(
            depth,
            config.width,
            shapes,
            by_corners=config.by_corners,
            generator=generator,
            start_gain=config.start_gain,
        )

    @property
    def new_modules(self) -> list[nn.Module]:
        """The layers with random initial weights."""
        return [self.neck, self.predictor]

    def forward(self, images: Tensor) -> Output:
        """(N, H, W, 3) uint8 RGB -> logits, deltas and priors."""
        maps = self.backbone.forward_maps(self.backbone.spec.to_input(images), self.neck.names)
        output: Output = self.predictor(self.neck(maps), (images.shape[1], images.shape[2]))
        return output


def make_shapes(
    config: MultiBoxConfig, strides: Sequence[int], boxes: Float32Array, image_sizes: Float32Array, *, seed: int
) -> list[Float32Array]:
    """Choose the prior shapes of each map by clustering the training objects.

    boxes: (G, 4) in pixels. image_sizes: (G, 2), height and width of the image of each box. strides: of the
    backbone's maps. The form `grids` has fixed shapes. The others raise ValueError for G = 0.
    """
    side = config.scales[-1]
    if config.form is Form.grids:
        return [grid_shapes(cells, side) for cells in (*GRIDS, 1)]
    if config.form is Form.whole:
        priors = kmeans_boxes((boxes / image_sizes[:, [1, 0, 1, 0]]).astype(np.float32), config.priors, seed=seed)
        return [((priors - 0.5) * side).astype(np.float32)]
    return pyramid_shapes(boxes, image_sizes, config, strides, shorter=side, longest=config.max_side, seed=seed)


def pyramid_shapes(
    boxes: Float32Array,
    image_sizes: Float32Array,
    config: MultiBoxTargetConfig,
    strides: Sequence[int],
    *,
    shorter: int,
    longest: int,
    seed: int,
) -> list[Float32Array]:
    """Cluster objects to `config.priors` shapes and distribute these over the maps.

    boxes, image_sizes, strides: as in `make_shapes`. shorter, longest: the size of scaled images, see
    `Scaling.to_side`. Returns one array (A, 4) per stride and a last one for the coarser map of `with_coarser`, which
    is empty if `config.coarser` is false. Raises ValueError for G = 0.
    """
    factors = np.minimum(shorter / image_sizes.min(axis=1), longest / image_sizes.max(axis=1))
    found = kmeans_sizes(
        ((boxes[:, 2:] - boxes[:, :2]) * factors[:, None]).astype(np.float32), config.priors, seed=seed
    )
    if config.coarser:
        return [centred(one) for one in by_stride(found, [*strides, 2 * strides[-1]], cells=config.cells)]
    return [centred(one) for one in (*by_stride(found, strides, cells=config.cells), found[:0])]


def decode(output: Output, *, by_corners: bool) -> Tensor:
    """Priors and deltas -> boxes (N, P, 4) in pixels of the input, not clipped; the inverse of `encode`."""
    if by_corners:
        return output.priors + output.deltas * _sides(output)
    return geometry.decode_tensors(output.priors.expand_as(output.deltas), output.deltas)


def best_boxes(
    boxes: Tensor, logits: Tensor, image_size: tuple[int, int], *, count: int, nms_iou: float
) -> tuple[Tensor, Tensor]:
    """The top-scoring boxes of one image: (P, 4), (P,) -> (k, 4), (k,) confidences, k <= count, best first.

    image_size: (height, width) of the image without padding. Boxes are clipped to it; empty ones are dropped.
    nms_iou: IoU threshold of non-maximum suppression; 1 keeps all boxes.
    """
    order = logits.argsort(descending=True, stable=True)[: NMS_CANDIDATES * count]
    scores = logits[order].sigmoid()
    # Vectorised sigmoid can differ in the last bit between equal or neighbouring logits, so the scores decide.
    scores, places = scores.sort(descending=True, stable=True)
    order = order[places]
    boxes = geometry.clip_tensors(boxes[order], image_size)
    solid = (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(dim=1)
    boxes, scores = boxes[solid], scores[solid]
    if nms_iou < 1:
        kept = geometry.nms_tensors(boxes, nms_iou, most=count)
        boxes, scores = boxes[kept], scores[kept]
    return boxes[:count], scores[:count]


NMS_CANDIDATES = 10
"""NMS gets this many times `count` boxes. With all boxes it would take most of the time."""


def encode(priors: Tensor, boxes: Tensor, input_size: tuple[int, int], *, by_corners: bool) -> Tensor:
    """The deltas (P, 4) from priors (P, 4) to boxes (P, 4), both in pixels of the input. Boxes must have an area.

    by_corners: differences of the corners as a share of the input's sides (2014), else deltas of centre and size.
    """
    if by_corners:
        height, width = input_size
        return (boxes - priors) / boxes.new_tensor([width, height, width, height])
    return geometry.encode_tensors(priors, boxes)


def _sides(output: Output) -> Tensor:
    height, width = output.input_size
    return output.priors.new_tensor([width, height, width, height])


INITIAL_CONFIDENCE = 0.01
"""The confidence of every prior before training (Lin et al. 2017, "Focal loss", section 4.1)."""


def _output(width: int, count: int, generator: torch.Generator) -> nn.Conv2d:
    layer = nn.Conv2d(width, 5 * count, 1)
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    with torch.no_grad():
        _bias(layer).zero_()[::5] = math.log(INITIAL_CONFIDENCE / (1 - INITIAL_CONFIDENCE))
    return layer


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
