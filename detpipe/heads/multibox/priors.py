"""Where MultiBox begins to look: boxes around the cells of a feature map, which the network moves onto objects.

A prior is given by its shape: a box around the centre of its cell. G: objects. A: shapes of a map. h, w: its cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from detpipe.structures import Float32Array

ASPECT_RATIOS = (1.0, 1.0, 1.0, 0.75, 1.333, 0.5, 2.0, 0.4, 2.5, 0.33, 3.0)
"""Width over height of the eleven priors of a cell (see `grid_shapes`)."""


def prior_boxes(shapes: Tensor, grid: tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """The priors of a map: (A, 4) shapes, (h, w), (height, width) -> (h w A, 4), in pixels of the input.

    Cells row by row, of each cell all shapes. Cells are even parts of the input. A = 0 gives (0, 4).
    """
    (rows, columns), (height, width) = grid, input_size
    y = (torch.arange(rows, device=shapes.device) + 0.5) * (height / rows)
    x = (torch.arange(columns, device=shapes.device) + 0.5) * (width / columns)
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=2).reshape(-1, 1, 2).flip(2)
    return (centres.repeat(1, 1, 2) + shapes).reshape(-1, 4).to(shapes.dtype)


def centred(sizes: Float32Array) -> Float32Array:
    """Shapes of these widths and heights: (A, 2) -> (A, 4)."""
    return np.concatenate([-sizes / 2, sizes / 2], axis=1).astype(np.float32)


def kmeans_sizes(sizes: Float32Array, count: int, *, seed: int) -> Float32Array:
    """The `count` widths and heights that the objects' own lie around: (G, 2) -> (count, 2), small to large.

    k-means of their logarithms (of twice the width is as far as of half), as of YOLO9000 (Redmon & Farhadi 2017,
    section 2). Fewer different objects than `count` give as many as there are. G = 0 raises ValueError.
    """
    _require_objects(len(sizes))
    found = np.exp(_kmeans(np.log(np.maximum(sizes, 1.0)), count, seed)).astype(np.float32)
    return np.ascontiguousarray(found[np.argsort(found.prod(axis=1), kind="stable")])


def kmeans_boxes(boxes: Float32Array, count: int, *, seed: int) -> Float32Array:
    """The `count` places that objects stand at, as shares of the image: (G, 4) in [0, 1] -> (count, 4).

    MultiBox's priors (Erhan et al. 2014). Fewer different objects than `count` give as many as there are. G = 0 raises
    ValueError.
    """
    _require_objects(len(boxes))
    found = _kmeans(boxes.astype(np.float64), count, seed).astype(np.float32)
    return np.ascontiguousarray(found[np.lexsort(found.T)])


def by_stride(sizes: Float32Array, strides: Sequence[int], *, cells: float) -> list[Float32Array]:
    """Which map predicts which shape: the one in whose cells the shape's side is nearest to `cells`, by ratio.

    (A, 2), ascending strides -> for each stride its sizes (A', 2); a stride may have none.
    """
    side = np.sqrt(sizes.prod(axis=1))
    distance = np.abs(np.log(side[:, None] / (np.asarray(strides, dtype=np.float64) * cells)[None, :]))
    nearest = distance.argmin(axis=1)
    return [np.ascontiguousarray(sizes[nearest == place]) for place in range(len(strides))]


def grid_shapes(cells: int, side: int) -> Float32Array:
    """The shapes of one of MSC-MultiBox's maps, of cells x cells over a square input: (11, 4) pixels.

    Each aspect ratio has the area of a square a little larger than its cell; the ratio of 1 comes in three sizes.
    (Szegedy et al. 2014 give the number of priors a cell, not their shapes: these are ours.) One cell: all the image.
    """
    if cells == 1:
        return centred(np.array([[side, side]], dtype=np.float32))
    ratios = np.asarray(ASPECT_RATIOS)
    scale = np.ones(len(ratios))
    scale[:3] = 0.7, 1.0, 1.4
    base = 1.5 * side / cells * scale
    sizes = np.stack([base * np.sqrt(ratios), base / np.sqrt(ratios)], axis=1)
    return centred(np.minimum(sizes, side).astype(np.float32))


Numbers = tuple[tuple[tuple[float, ...], ...], ...]
"""Shapes by map as plain numbers, for a description in JSON."""


def as_numbers(shapes: Sequence[Float32Array]) -> Numbers:
    """Of each map (A, 4)."""
    return tuple(tuple(tuple(map(float, shape)) for shape in each) for each in shapes)


def as_shapes(numbers: Sequence[Sequence[Sequence[float]]]) -> list[Float32Array]:
    """The inverse of `as_numbers`: of each map (A, 4) float32. Raises ValueError for other than four numbers each."""
    return [np.asarray(each, dtype=np.float32).reshape(len(each), 4) for each in numbers]


def _require_objects(count: int) -> None:
    if not count:
        raise ValueError("priors: expected objects to cluster, got none: has the training set no boxes?")


def _kmeans(points: npt.NDArray[np.float64], count: int, seed: int) -> npt.NDArray[np.float64]:
    different = np.unique(points, axis=0)
    if len(different) <= count:
        return different
    # kmeans++ (Arthur & Vassilvitskii 2007); an empty cluster keeps the centre that it had.
    centres, _ = kmeans2(points, count, iter=50, minit="++", rng=np.random.default_rng(seed), missing="warn")
    return np.asarray(centres, dtype=np.float64)
