"""MultiBox: a network that says where things might be (Erhan et al. 2014; Szegedy et al. 2014, "Scalable, high-quality
object detection"): for each prior a logit that an object is there, and how the prior moves onto it.

N: images. P: priors of an image. A: priors of a cell. C: channels.
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
    """logits (N, P), moves (N, P, 4), priors (P, 4) in pixels of the input, kinds (P,) int64, the number of each
    prior's shape among all, input_size (height, width)."""

    logits: Tensor
    moves: Tensor
    priors: Tensor
    kinds: Tensor
    input_size: tuple[int, int]


class MultiBoxPredictor(nn.Module):
    """From feature maps to logits and moves: a layer that all maps share, then one for each.

    depth: channels of the maps. shapes: of each map its priors (A, 4), around the centre of a cell; a map may have
    none, and is not looked at. start_gain: of the shared layer's first weights, their variance times what each sees.
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
        # Of each shape a slope and an offset that make its logit a chance (Platt 1999); 1 and 0 until they are fitted.
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
        """(N, C, h, w) a map, (height, width) of the input in pixels -> the predictions of all maps, fine to coarse."""
        logits, moves, priors, kinds = [], [], [], []
        numbers = torch.arange(len(self.shapes), device=self.shapes.device).split(self.counts)
        lines = zip(
            maps,
            self.outputs,
            self.shapes.split(self.counts),
            self.calibration.split(self.counts),
            numbers,
            strict=True,
        )
        for one, output, shapes, calibration, own in lines:
            if not len(shapes):
                continue
            predicted = output(F.relu(self.shared(one))).float().permute(0, 2, 3, 1)
            predicted = predicted.reshape(len(one), one.shape[2] * one.shape[3], len(shapes), 5)
            logits.append((predicted[..., 0] * calibration[:, 0] + calibration[:, 1]).flatten(1))
            moves.append(predicted[..., 1:].flatten(1, 2))
            priors.append(prior_boxes(shapes, (one.shape[2], one.shape[3]), input_size))
            kinds.append(own.repeat(one.shape[2] * one.shape[3]))
        return Output(
            torch.cat(logits, dim=1), torch.cat(moves, dim=1), torch.cat(priors), torch.cat(kinds), input_size
        )

    def boxes(self, output: Output) -> Tensor:
        """Where the moves bring the priors: (N, P, 4), pixels of the input, not clipped."""
        return decode(output, by_corners=self.by_corners)


class MultiBox(nn.Module):
    """Images -> predictions, by one pass. New layers start from `seed`; the backbone's weights are the caller's.

    Raises ValueError for a map that the backbone hasn't, and for shapes of another number of maps than the form has.
    """

    def __init__(
        self, backbone: Backbone, config: MultiBoxConfig, shapes: Sequence[Float32Array], *, seed: int
    ) -> None:
        super().__init__()
        backbone.check_map_names(config.maps)
        if len(shapes) != config.n_maps:
            raise ValueError(f"multibox: expected shapes of priors for {config.n_maps} maps, got {len(shapes)}")
        generator = torch.Generator().manual_seed(seed)
        self.backbone = backbone
        self.backbone.classifier = None  # ImageNet's own head, which no gradient would reach
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
        """The layers that start from nothing."""
        return [self.neck, self.predictor]

    def forward(self, images: Tensor) -> Output:
        """(N, H, W, 3) uint8 RGB -> logits, moves and priors."""
        maps = self.backbone.forward_maps(self.backbone.spec.to_input(images), self.neck.names)
        output: Output = self.predictor(self.neck(maps), (images.shape[1], images.shape[2]))
        return output


def make_shapes(
    config: MultiBoxConfig, strides: Sequence[int], boxes: Float32Array, image_sizes: Float32Array, *, seed: int
) -> list[Float32Array]:
    """The priors' shapes by map, after the training objects.

    boxes: (G, 4) pixels, each with the (G, 2) height and width of its image. strides: of the backbone's maps. The form
    grids looks at no object; the others raise ValueError for G = 0.
    """
    side = config.scales[-1]
    if config.form is Form.grids:
        return [grid_shapes(cells, side) for cells in (*GRIDS, 1)]
    if config.form is Form.whole:
        places = kmeans_boxes((boxes / image_sizes[:, [1, 0, 1, 0]]).astype(np.float32), config.priors, seed=seed)
        return [((places - 0.5) * side).astype(np.float32)]
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
    """`config.priors` shapes after objects as `make_shapes` has them, by map; the last map is `with_coarser`'s,
    which has none without `config.coarser`.

    shorter, longest: as of Scaling.to_side, the sides that images are brought to. Raises ValueError for G = 0.
    """
    factors = np.minimum(shorter / image_sizes.min(axis=1), longest / image_sizes.max(axis=1))
    found = kmeans_sizes(
        ((boxes[:, 2:] - boxes[:, :2]) * factors[:, None]).astype(np.float32), config.priors, seed=seed
    )
    if config.coarser:
        return [centred(one) for one in by_stride(found, [*strides, 2 * strides[-1]], cells=config.cells)]
    return [centred(one) for one in (*by_stride(found, strides, cells=config.cells), found[:0])]


def decode(output: Output, *, by_corners: bool) -> Tensor:
    """Priors and moves -> boxes (N, P, 4) in pixels of the input, not clipped; the inverse of `encode`."""
    if by_corners:
        return output.priors + output.moves * _sides(output)
    return geometry.decode_tensors(output.priors.expand_as(output.moves), output.moves)


def best_boxes(
    boxes: Tensor, logits: Tensor, image_size: tuple[int, int], *, count: int, nms_iou: float
) -> tuple[Tensor, Tensor]:
    """The best predictions of one image: (P, 4), (P,) -> (k, 4), (k,) confidences, k <= count, best first.

    image_size: the (height, width) of what of the input is image: boxes are clipped to it, and dropped where nothing
    is left. A box that overlaps a better one by more than nms_iou is dropped; 1 keeps all.
    """
    order = logits.argsort(descending=True, stable=True)[: LOOKED_AT * count]
    boxes, scores = geometry.clip_tensors(boxes[order], image_size), logits[order].sigmoid()
    solid = (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(dim=1)
    boxes, scores = boxes[solid], scores[solid]
    if nms_iou < 1:
        kept = geometry.nms_tensors(boxes, nms_iou)
        boxes, scores = boxes[kept], scores[kept]
    return boxes[:count], scores[:count]


LOOKED_AT = 10
"""NMS is given so many times the boxes that are wanted: of all of them it would take most of the time."""


def encode(priors: Tensor, boxes: Tensor, input_size: tuple[int, int], *, by_corners: bool) -> Tensor:
    """The moves that bring priors (P, 4) onto boxes (P, 4), both in pixels of the input; boxes have an area."""
    if by_corners:
        height, width = input_size
        return (boxes - priors) / boxes.new_tensor([width, height, width, height])
    return geometry.encode_tensors(priors, boxes)


def _sides(output: Output) -> Tensor:
    height, width = output.input_size
    return output.priors.new_tensor([width, height, width, height])


RARE = 0.01
"""The confidence of every prior before training (Lin et al. 2017, "Focal loss", section 4.1)."""


def _output(width: int, count: int, generator: torch.Generator) -> nn.Conv2d:
    layer = nn.Conv2d(width, 5 * count, 1)
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    with torch.no_grad():
        _bias(layer).zero_()[::5] = math.log(RARE / (1 - RARE))
    return layer


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
