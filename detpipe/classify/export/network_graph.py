"""A region classifier as a graph for export: its inputs, their dynamic axes, and its outputs.

The input is uint8 pixels: the graph includes the network's normalisation.

N: crops. S: side of a crop. R: regions. K: classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from detpipe.classify.crops.network import RcnnNetwork, RcnnSpec
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.fast_rcnn.scorer import REFINED_FROM
from detpipe.classify.settings import DetectConfig
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.storage.manifest import plain
from detpipe.structures import Float32Array

OUTPUTS = ("probabilities", "deltas")


@dataclass(frozen=True, eq=False)
class NetworkGraph:
    """A network with example inputs, to export it as a graph and to test the graph.

    network: in evaluation mode. It takes the inputs and returns probabilities (N, K + 1), where column 0 is background,
    and, with box regression, deltas (N, K, 4). examples: inputs by name, in several sizes; the graph is traced on the
    first. dynamic: maps the name of an input to its dynamic axes and their names.
    """

    network: nn.Module
    examples: tuple[Mapping[str, Tensor], ...]
    dynamic: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> list[dict[str, object]]:
        """Name, dtype and shape of each input; a dynamic axis has a name instead of a number."""
        return [
            {
                "name": name,
                "dtype": str(example.dtype).removeprefix("torch."),
                "shape": [self.dynamic[name].get(axis, length) for axis, length in enumerate(example.shape)],
            }
            for name, example in self.examples[0].items()
        ]


def crops_preprocessing(spec: RcnnSpec, config: DetectConfig) -> dict[str, Any]:
    """The preprocessing for the graph of an R-CNN: how regions are cropped."""
    del config
    return {"crops": {name: plain(getattr(spec.crops, name)) for name in ("size", "mode", "context_pad", "fill")}}


def fast_rcnn_preprocessing(spec: FastRcnnSpec, config: DetectConfig) -> dict[str, Any]:
    """The preprocessing for the graph of a Fast R-CNN: how images are scaled, and how often boxes are refined."""
    return {
        "scaling": {
            "scales": config.fast_rcnn.scales or spec.head.scales[-1:],
            "max_side": spec.head.max_side,
            "flip": config.fast_rcnn.flip,
        },
        "refine": {"times": spec.head.refine, "from_probability": REFINED_FROM},
    }


class _OfCrops(nn.Module):
    """(N, S, S, 3) uint8 -> probabilities, deltas."""

    def __init__(self, network: RcnnNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        return _results(*self.network(crops))


class _OfImage(nn.Module):
    """(1, H, W, 3) uint8, (R, 4) -> probabilities, deltas."""

    def __init__(self, network: FastRcnn) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        return _results(*self.network(image, functional.pad(boxes, (1, 0))))


def _results(logits: Tensor, deltas: Tensor | None) -> tuple[Tensor, ...]:
    probabilities = logits.softmax(dim=1)
    return (probabilities,) if deltas is None else (probabilities, deltas)


def graph_of_crops(network: RcnnNetwork, spec: RcnnSpec) -> NetworkGraph:
    """The graph of an R-CNN. Input: `crops` (N, S, S, 3) uint8 RGB, any N, S as in training."""
    generator, side = np.random.default_rng(0), spec.crops.size
    return NetworkGraph(
        _OfCrops(network).eval(),
        tuple({"crops": _noise(generator, (count, side, side, 3))} for count in (3, 1, 0)),
        {"crops": {0: "crops"}},
        OUTPUTS[: 1 if network.box_regressor is None else 2],
    )


def graph_of_fast_rcnn(network: FastRcnn, spec: FastRcnnSpec) -> NetworkGraph:
    """The graph of a Fast R-CNN, for any H, W and R.

    Inputs: `image` (1, H, W, 3) uint8 RGB and `boxes` (R, 4) float32 in its pixels. The graph is tested on images whose
    shorter side is close to the test scale.
    """
    generator, side = np.random.default_rng(0), spec.head.scales[-1]
    # Regions from tiny to the whole image; so few that a level is empty; and none. Also odd sides: a graph might
    # contain a rounding that is right for even sides only.
    sizes = ((side, side * 4 // 3, 40), (side * 5 // 4, side + 1, 2), (side + 7, side + 13, 9), (side, side, 0))
    return NetworkGraph(
        _OfImage(network).eval(),
        tuple(
            {
                "image": _noise(generator, (1, height, width, 3)),
                "boxes": torch.from_numpy(_some_boxes(generator, count, height, width)),
            }
            for height, width, count in sizes
        ),
        {"image": {1: "height", 2: "width"}, "boxes": {0: "regions"}},
        OUTPUTS[: 1 if network.box_regressor is None else 2],
    )


def _noise(generator: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(generator.integers(0, 256, shape, dtype=np.uint8))


def _some_boxes(generator: np.random.Generator, count: int, height: int, width: int) -> Float32Array:
    """(count, 4) float32. Each side is between 1/32 and all of the image's."""
    size = np.array([width, height])
    sides = size * 2.0 ** generator.uniform(-5, 0, (count, 2))
    corner = generator.uniform(0, 1, (count, 2)) * (size - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
