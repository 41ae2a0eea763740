"""Attention among the regions of an image inside a head on stored features, and batches of whole images to train it.

N: regions. H: width of a hidden layer. L: layers. B: regions of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from detpipe.heads.fast_rcnn.region_attention import RegionAttention
from detpipe.structures import BoolArray, Float32Array, Int64Array

HEADS, WIDTH, INNER = 4, 128, 256
"""Heads, width of queries, keys and values, and width between the two fully connected layers: as in Fast R-CNN."""

SHARES, CENTRES = slice(2, 4), slice(4, 6)
"""Columns of a region's geometry: logarithms of width and height, and centre, each relative to the image."""

SIDE = 1000.0
"""Boxes are in units of 1 / SIDE of the image's sides. The geometry of a pair of boxes has the same values in any."""


def new_attention(width: int, layers: int, seed: int = 0) -> RegionAttention:
    """L layers on features (N, width). They do not change the features until they have learned."""
    generator = torch.Generator().manual_seed(seed)
    return RegionAttention(width, layers=layers, heads=HEADS, width=WIDTH, hidden=INNER, generator=generator)


def stored_attention(width: int, tensors: Mapping[str, Tensor]) -> RegionAttention:
    """The layers on features (N, width) with the parameters `tensors`. Raises RuntimeError if these do not fit."""
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    attention = new_attention(width, len(layers))
    attention.load_state_dict(dict(tensors))
    return attention.requires_grad_(False)


def boxes_of(geometry: Tensor) -> Tensor:
    """Geometry (N, G) -> boxes (N, 4), x1 y1 x2 y2, in units of 1 / SIDE of the image's sides."""
    half, centre = geometry[:, SHARES].exp() / 2, geometry[:, CENTRES] + 0.5
    return torch.cat([centre - half, centre + half], dim=1) * SIDE


def attended(layers: nn.Module, hidden: Tensor, boxes: Tensor, ignored: Tensor | None) -> Tensor:
    """Features (N, H) and boxes (N, 4) of the regions of one image -> (N, H). ignored: see `FeatureHead.forward`."""
    assert isinstance(layers, RegionAttention)
    if ignored is not None:
        return layers.at_once(hidden, boxes, ignored)
    changed: Tensor = layers(hidden, boxes, boxes.new_zeros(len(boxes)))
    return changed


@dataclass(frozen=True, eq=False)
class Batch:
    """rows: (B,) of the examples. weights: (B,) float32, of each region in the loss; their sum is 1. sets: (B,) the
    image of each region."""

    rows: Int64Array
    weights: Float32Array
    sets: Int64Array


class Batches(Protocol):
    """Draws the regions of a step."""

    def draw(self, generator: np.random.Generator) -> Batch:
        """The next batch."""
        ...


class RegionBatches:
    """`size` single regions, a share of `fg_share` of them on objects; all on objects if there is no background.

    labels: (N,) int64, 0 is background. rows: those that are learned; at least one is on an object.
    """

    def __init__(self, labels: Int64Array, rows: Int64Array, *, size: int, fg_share: float) -> None:
        self._objects, self._background = rows[labels[rows] > 0], rows[labels[rows] == 0]
        self._size, self._n_objects = size, round(fg_share * size) if len(self._background) else size

    def draw(self, generator: np.random.Generator) -> Batch:
        """The next batch."""
        chosen = generator.choice(self._objects, self._n_objects)
        if len(self._background):
            chosen = np.concatenate([chosen, generator.choice(self._background, self._size - self._n_objects)])
        return Batch(chosen, np.full(self._size, 1 / self._size, np.float32), np.zeros(self._size, np.int64))


class ImageBatches:
    """All regions of as many images as have `size` regions on average, at least one.

    Regions on objects have a share of `fg_share` of the weights, as in `RegionBatches`, or all if no other is learned.
    Regions that are not in `rows` have none, but others attend to them. labels, sets: (N,), see `Examples`.
    """

    def __init__(self, labels: Int64Array, rows: Int64Array, sets: Int64Array, *, size: int, fg_share: float) -> None:
        self._labels, self._fg_share = labels, fg_share
        self._learned: BoolArray = np.isin(np.arange(len(labels)), rows)
        order = np.argsort(sets, kind="stable")
        self._images = np.split(order, np.flatnonzero(np.diff(sets[order])) + 1)
        self._count = min(max(round(size * len(self._images) / len(labels)), 1), len(self._images))

    def draw(self, generator: np.random.Generator) -> Batch:
        """The next batch."""
        images = [self._images[one] for one in generator.choice(len(self._images), self._count, replace=False)]
        rows = np.concatenate(images)
        objects = self._learned[rows] & (self._labels[rows] > 0)
        background = self._learned[rows] & ~objects
        share = self._fg_share if background.any() else 1.0
        share = share if objects.any() else 0.0
        weights = objects * (share / max(objects.sum(), 1)) + background * ((1 - share) / max(background.sum(), 1))
        sets = np.repeat(np.arange(len(images)), [len(one) for one in images])
        return Batch(rows, weights.astype(np.float32), sets)
