"""A region classifier that is small enough for tests: one convolution on crops of 16 pixels."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone, FeatureMap
from detpipe.backbone.input_spec import InputSpec
from detpipe.classify.crops.network import RcnnNetwork
from detpipe.structures import Image

SIDE = 16


class TinyBackbone(Backbone):
    """Eight features: a strided convolution, averaged."""

    def __init__(self) -> None:
        spec = InputSpec((SIDE, SIDE), (127.0, 127.0, 127.0), (64.0, 64.0, 64.0))
        super().__init__(spec, 8, {"stem": FeatureMap(4, 8)})
        self.stem = nn.Conv2d(3, 8, 4, stride=4)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        return [("stem", self.stem)]

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x).relu().mean(dim=(2, 3))

    def forward_maps(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        return dict.fromkeys(names, self.stem(x))


def classifier(n_classes: int = 2, *, box_regression: bool = True, dropout: float = 0.0, seed: int = 0) -> RcnnNetwork:
    """A classifier of `n_classes`, in training mode, all of it drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = TinyBackbone()
    return RcnnNetwork(backbone, n_classes, box_regression=box_regression, dropout=dropout, seed=seed)


def confident(network: RcnnNetwork) -> RcnnNetwork:
    """The same with larger weights in its new layers, so that outputs differ from crop to crop; evaluation mode."""
    with torch.no_grad():
        for layer in (network.head, network.box_regressor):
            if layer is not None:
                layer.linear.weight.mul_(100)
    return network.eval()


def crops(count: int, seed: int = 0) -> Image:
    """(count, 16, 16, 3) uint8 noise, of another colour each."""
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 200, (count, 1, 1, 3))
    noise = generator.integers(0, 56, (count, SIDE, SIDE, 3))
    return (colours + noise).astype(np.uint8)
