"""The necks of MultiBox's three forms: layers between the backbone's feature maps and the predictions.

N: number of images. C: channels. h, w: height and width of a map in cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from detpipe.backbone.backbone import Backbone
from detpipe.heads.fast_rcnn.linear import linear_layer
from detpipe.heads.fast_rcnn.network import draw_convolutions
from detpipe.heads.multibox.settings import GRIDS, Form, MultiBoxConfig


class PyramidNeck(nn.Module):
    """Maps merged top-down (FPN, Lin et al. 2017), and one coarser map with twice the last stride."""

    def __init__(self, names: Sequence[str], depths: Sequence[int], width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = tuple(names)
        self.merge = FeaturePyramidNetwork(list(depths), width)
        draw_convolutions(self.merge, generator)

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """Maps by name, fine to coarse -> the merged maps and a coarser one, each with `width` channels."""
        return with_coarser(list(self.merge(OrderedDict(maps)).values()))


def with_coarser(maps: Sequence[Tensor]) -> list[Tensor]:
    """Append the last map, subsampled to half its size, for the largest priors (FPN, section 4.1)."""
    return [*maps, maps[-1][:, :, ::2, ::2]]


class GridsNeck(nn.Module):
    """The last map, average-pooled to each grid of MSC-MultiBox."""

    def __init__(self, name: str, depth: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = (name,)
        self.reduce = nn.Conv2d(depth, width, 1)
        draw_convolutions(self.reduce, generator)

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """The last map -> one map for each grid size, fine to coarse."""
        reduced = F.relu(self.reduce(maps[self.names[0]]))
        return [F.adaptive_avg_pool2d(reduced, cells) for cells in (*GRIDS, 1)]


class WholeNeck(nn.Module):
    """A fully connected layer over the whole last map, as in MultiBox of 2014."""

    cells = 6
    """The map is average-pooled to 6 x 6 cells, the size of the last map in the paper's network."""

    def __init__(self, name: str, depth: int, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = (name,)
        self.reduce = nn.Conv2d(depth, width, 1)
        draw_convolutions(self.reduce, generator)
        self.connected = linear_layer(width * self.cells**2, hidden, generator)

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """The last map -> one map (N, hidden, 1, 1)."""
        reduced = F.adaptive_avg_pool2d(F.relu(self.reduce(maps[self.names[0]])), self.cells)
        return [F.relu(self.connected(reduced.flatten(1)))[:, :, None, None]]


def make_neck(
    backbone: Backbone, config: MultiBoxConfig, generator: torch.Generator
) -> PyramidNeck | GridsNeck | WholeNeck:
    """The neck of the configured form."""
    depths = [backbone.feature_maps[name].channels for name in config.maps]
    if config.form is Form.pyramid:
        return PyramidNeck(config.maps, depths, config.width, generator)
    if config.form is Form.grids:
        return GridsNeck(config.maps[-1], depths[-1], config.width, generator)
    return WholeNeck(config.maps[-1], depths[-1], config.width, config.hidden, generator)
