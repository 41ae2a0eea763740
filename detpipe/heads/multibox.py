"""MultiBox: a network that says where things might be (Erhan et al. 2014; Szegedy et al. 2014, "Scalable, high-quality
object detection"): for each prior a logit that an object is there, and how the prior moves onto it.

N: images. P: priors of an image. A: priors of a cell. C: channels.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork, nms

from detpipe import boxes as geometry
from detpipe.backbone.backbone import Backbone
from detpipe.backbone.fine_tuning import FineTuning
from detpipe.heads.fast_rcnn import draw_convolutions, linear_layer
from detpipe.heads.priors import GRIDS, by_stride, centred, grid_shapes, kmeans_boxes, kmeans_sizes, prior_boxes
from detpipe.structures import Float32Array


class Form(enum.Enum):
    """What is predicted where.

    pyramid: at every cell of maps that are merged top-down. grids: at the cells of small grids that the last map is
    averaged to (MSC-MultiBox). whole: a fixed number of boxes from all of the last map (MultiBox of 2014).
    """

    pyramid = "pyramid"
    grids = "grids"
    whole = "whole"


class Matching(enum.Enum):
    """How many predictions an object has: one (bipartite), or all that are near enough."""

    bipartite = "bipartite"
    many_to_one = "many_to_one"


class MatchedBy(enum.Enum):
    """What is matched with objects: the priors, or the predicted boxes and their confidence (eq. 4 of 2014)."""

    prior = "prior"
    prediction = "prediction"


class Localization(enum.Enum):
    """The loss of the box: squared error of its corners (2014), smooth L1 of its deltas, or 1 - GIoU."""

    squared = "squared"
    smooth_l1 = "smooth_l1"
    giou = "giou"


class Confidence(enum.Enum):
    """The loss of the confidence: cross entropy (2014), focal loss, or quality: what is learned is the box's IoU."""

    cross_entropy = "cross_entropy"
    focal = "focal"
    quality = "quality"


@dataclass(kw_only=True)
class MultiBoxTargets:
    """How many priors, which of them answers for which object, and by which losses they learn."""

    priors: int = 9
    """Shapes of priors, each at every cell of the map that suits its size; of the form whole: boxes of an image."""
    matching: Matching = Matching.many_to_one
    """bipartite or many_to_one."""
    matched_by: MatchedBy = MatchedBy.prior
    """prior or prediction."""
    positive_iou: float = 0.5
    """many_to_one: a prior is an object's at this IoU or more ..."""
    negative_iou: float = 0.4
    """... and background below this one."""
    at_least: int = 4
    """many_to_one: so many of the priors that are nearest to an object are its, however far they are."""
    localization: Localization = Localization.giou
    """squared, smooth_l1 or giou."""
    confidence: Confidence = Confidence.quality
    """cross_entropy, focal or quality."""
    location_weight: float = 1.0
    """Weight of the box's loss beside the confidence's."""
    negatives: int | None = None
    """Background priors that count for each object's: the ones with the largest loss (hard negatives); null: all."""

    def __post_init__(self) -> None:
        if self.priors < 1:
            raise ValueError(f"multibox.priors: wanted at least 1, got {self.priors}")
        if not 0 <= self.negative_iou <= self.positive_iou <= 1 or self.at_least < 0:
            raise ValueError(
                "multibox: wanted 0 <= negative_iou <= positive_iou <= 1 and at_least >= 0, got "
                f"{self.negative_iou}, {self.positive_iou}, {self.at_least}"
            )
        if self.matched_by is MatchedBy.prediction and self.matching is not Matching.bipartite:
            raise ValueError("multibox.matched_by: prediction goes with matching=bipartite, as in the paper")
        if self.negatives is not None and self.negatives < 1:
            raise ValueError(f"multibox.negatives: wanted at least 1 for each positive, or null, got {self.negatives}")
        if not self.location_weight >= 0:
            raise ValueError(f"multibox.location_weight: wanted at least 0, got {self.location_weight}")

    @property
    def by_corners(self) -> bool:
        """Whether moves are of corners, in sides of the input (2014), and not deltas of centre and size."""
        return self.localization is Localization.squared


@dataclass(kw_only=True)
class MultiBoxHead(FineTuning, MultiBoxTargets):
    """The form of the network, what it learns from, and how its training images are shown."""

    form: Form = Form.pyramid
    """pyramid, grids (msc_multibox) or whole (multibox_2014)."""
    maps: list[str] = field(default_factory=lambda: ["stride8", "stride16", "stride32"])
    """Feature maps of the backbone, fine to coarse: pyramid merges them and adds one of twice the last stride; the
    other forms take the last one."""
    width: int = 96
    """Channels of the merged maps, and of the layer before the predictions."""
    hidden: int = 1024
    """whole: width of the layer that sees all of the image."""
    scales: list[int] = field(default_factory=lambda: [320, 352, 384])
    """Pixels of an image's shorter side in training, one at random; the last one in proposing. The forms grids and
    whole bring all images to a square of the last one."""
    max_side: int = 640
    """Pixels of the longer side at most."""
    calibrate: bool = False
    """After training, bring each prior's confidence to the share of its boxes that found an object."""
    flip: bool = True
    """Mirror half of the training images."""
    crop_share: float = 0.5
    """Share of the training images that are shown in part ..."""
    crop_area: float = 0.3
    """... of at least this share of their area."""
    colour: float = 0.2
    """Brightness, contrast and saturation vary by this share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maps, self.scales = list(self.maps), list(self.scales)
        if not self.maps or not self.scales or min(self.scales) < 32:
            raise ValueError(f"multibox: wanted maps, and scales of at least 32 pixels, got {self.maps}, {self.scales}")
        for name in ("width", "hidden", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"multibox.{name}: wanted at least 1, got {getattr(self, name)}")
        check_views(self.crop_share, self.crop_area, self.colour)

    @property
    def square(self) -> bool:
        """Whether all images are brought to one square."""
        return self.form is not Form.pyramid

    @property
    def n_maps(self) -> int:
        """How many maps predict, each with shapes of its own."""
        return {Form.pyramid: len(self.maps) + 1, Form.grids: len(GRIDS) + 1, Form.whole: 1}[self.form]


def check_views(crop_share: float, crop_area: float, colour: float) -> None:
    """Raise ValueError for settings by which no image can be shown."""
    if not 0 <= crop_share <= 1 or not 0 < crop_area <= 1 or not 0 <= colour < 1:
        raise ValueError(
            "wanted crop_share in [0, 1], crop_area in (0, 1], colour in [0, 1), got "
            f"{crop_share}, {crop_area}, {colour}"
        )


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
    none, and is not looked at.
    """

    def __init__(
        self, depth: int, width: int, shapes: Sequence[Float32Array], *, by_corners: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.by_corners = by_corners
        self.counts = tuple(len(one) for one in shapes)
        self.register_buffer("shapes", torch.from_numpy(np.concatenate(list(shapes)).reshape(-1, 4)))
        # Of each shape a slope and an offset that make its logit a chance (Platt 1999); 1 and 0 until they are fitted.
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0]]).repeat(sum(self.counts), 1))
        self.shared = nn.Conv2d(depth, width, 3, padding=1)
        nn.init.kaiming_normal_(self.shared.weight, nonlinearity="relu", generator=generator)
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

    def __init__(self, backbone: Backbone, config: MultiBoxHead, shapes: Sequence[Float32Array], *, seed: int) -> None:
        super().__init__()
        backbone.check_map_names(config.maps)
        if len(shapes) != config.n_maps:
            raise ValueError(f"multibox: wanted shapes of priors for {config.n_maps} maps, got {len(shapes)}")
        generator = torch.Generator().manual_seed(seed)
        self.backbone = backbone
        self.backbone.classifier = None  # ImageNet's own head, which no gradient would reach
        self.neck = make_neck(backbone, config, generator)
        depth = config.hidden if config.form is Form.whole else config.width
        self.predictor = MultiBoxPredictor(
            depth, config.width, shapes, by_corners=config.by_corners, generator=generator
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


class PyramidNeck(nn.Module):
    """Maps merged top-down (FPN, Lin et al. 2017), and one of twice the last one's stride."""

    def __init__(self, names: Sequence[str], depths: Sequence[int], width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = tuple(names)
        self.merge = FeaturePyramidNetwork(list(depths), width)
        draw_convolutions(self.merge, generator)

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """Maps by name, fine to coarse -> one more, each of `width` channels."""
        return with_coarser(list(self.merge(OrderedDict(maps)).values()))


def with_coarser(maps: Sequence[Tensor]) -> list[Tensor]:
    """The maps, and the last one at half its size (FPN, section 4.1: for the largest priors)."""
    return [*maps, maps[-1][:, :, ::2, ::2]]


class GridsNeck(nn.Module):
    """The last map, averaged to each of MSC-MultiBox's grids."""

    def __init__(self, name: str, depth: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = (name,)
        self.reduce = nn.Conv2d(depth, width, 1)
        draw_convolutions(self.reduce, generator)

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """The map -> one of each number of cells, fine to coarse."""
        reduced = F.relu(self.reduce(maps[self.names[0]]))
        return [F.adaptive_avg_pool2d(reduced, cells) for cells in (*GRIDS, 1)]


class WholeNeck(nn.Module):
    """All of the last map seen at once: a fully connected layer, as before the boxes of MultiBox of 2014."""

    cells = 6
    """The map is averaged to 6 x 6 cells, the size of the last map of the paper's network."""

    def __init__(self, name: str, depth: int, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = (name,)
        self.reduce = nn.Conv2d(depth, width, 1)
        draw_convolutions(self.reduce, generator)
        self.connected = linear_layer(width * self.cells**2, hidden, generator)

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """The map -> (N, hidden, 1, 1)."""
        reduced = F.adaptive_avg_pool2d(F.relu(self.reduce(maps[self.names[0]])), self.cells)
        return [F.relu(self.connected(reduced.flatten(1)))[:, :, None, None]]


def make_neck(
    backbone: Backbone, config: MultiBoxHead, generator: torch.Generator
) -> PyramidNeck | GridsNeck | WholeNeck:
    """What lies between the backbone and the predictions."""
    depths = [backbone.feature_maps[name].channels for name in config.maps]
    if config.form is Form.pyramid:
        return PyramidNeck(config.maps, depths, config.width, generator)
    if config.form is Form.grids:
        return GridsNeck(config.maps[-1], depths[-1], config.width, generator)
    return WholeNeck(config.maps[-1], depths[-1], config.width, config.hidden, generator)


CELLS = 6.0
"""pyramid: a shape's side is nearest to so many cells of the map that predicts it (RPN on FPN has 8)."""


def make_shapes(
    config: MultiBoxHead, strides: Sequence[int], boxes: Float32Array, image_sizes: Float32Array, *, seed: int
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
    factors = np.minimum(side / image_sizes.min(axis=1), config.max_side / image_sizes.max(axis=1))
    sizes = ((boxes[:, 2:] - boxes[:, :2]) * factors[:, None]).astype(np.float32)
    return pyramid_shapes(sizes, config.priors, strides, seed=seed)


def pyramid_shapes(sizes: Float32Array, count: int, strides: Sequence[int], *, seed: int) -> list[Float32Array]:
    """`count` shapes after objects of these (G, 2) widths and heights on the input, by map; the last map is
    `with_coarser`'s. Raises ValueError for G = 0."""
    found = kmeans_sizes(sizes, count, seed=seed)
    return [centred(one) for one in by_stride(found, [*strides, 2 * strides[-1]], cells=CELLS)]


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
    height, width = image_size
    limits = boxes.new_tensor([width, height, width, height])
    order = logits.argsort(descending=True, stable=True)[: LOOKED_AT * count]
    boxes, scores = torch.minimum(boxes[order].clamp(min=0), limits), logits[order].sigmoid()
    solid = (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(dim=1)
    boxes, scores = boxes[solid], scores[solid]
    if nms_iou < 1:
        kept = nms(boxes, scores, nms_iou)
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
