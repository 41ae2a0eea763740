"""Priors: fixed boxes around the cells of a feature map, from which the network predicts deltas to objects.

The shape of a prior is a box relative to the centre of its cell. G: number of objects. A: number of shapes of a map.
h, w: height and width of a map in cells.
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
"""Width divided by height of the eleven priors of a cell (see `grid_shapes`)."""


def prior_boxes(shapes: Tensor, grid: tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """The priors of a map: shapes (A, 4), grid (h, w), input (height, width) -> (h w A, 4) in pixels of the input.

    The order is row by row over the cells, and all shapes within a cell. All cells have equal size. A = 0 gives (0, 4).
    """
    (rows, columns), (height, width) = grid, input_size
    y = (torch.arange(rows, device=shapes.device) + 0.5) * (height / rows)
    x = (torch.arange(columns, device=shapes.device) + 0.5) * (width / columns)
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=2).reshape(-1, 1, 2).flip(2)
    return (centres.repeat(1, 1, 2) + shapes).reshape(-1, 4).to(shapes.dtype)


def centred(sizes: Float32Array) -> Float32Array:
    """Shapes with these widths and heights, centred on the cell: (A, 2) -> (A, 4)."""
    return np.concatenate([-sizes / 2, sizes / 2], axis=1).astype(np.float32)


def kmeans_sizes(sizes: Float32Array, count: int, *, seed: int) -> Float32Array:
    """Cluster object sizes by k-means: widths and heights (G, 2) -> `count` centres (count, 2), by ascending area.

    The idea is from YOLO9000 (Redmon & Farhadi 2017, section 2). Distances are between logarithms, so that twice and
    half the width are equally far. If there are fewer different sizes than `count`, these are returned. Raises
    ValueError for G = 0.
    """
    _require_objects(len(sizes))
    found = np.exp(_kmeans(np.log(np.maximum(sizes, 1.0)), count, seed)).astype(np.float32)
    return np.ascontiguousarray(found[np.argsort(found.prod(axis=1), kind="stable")])


def kmeans_boxes(boxes: Float32Array, count: int, *, seed: int) -> Float32Array:
    """Cluster object boxes by k-means: (G, 4) as shares of the image, in [0, 1] -> `count` boxes (count, 4).

    These are the priors of MultiBox (Erhan et al. 2014). If there are fewer different boxes than `count`, these are
    returned. Raises ValueError for G = 0.
    """
    _require_objects(len(boxes))
    found = _kmeans(boxes.astype(np.float64), count, seed).astype(np.float32)
    return np.ascontiguousarray(found[np.lexsort(found.T)])


def by_stride(sizes: Float32Array, strides: Sequence[int], *, cells: float) -> list[Float32Array]:
    """Assign each size to the map where its side, the root of its area, spans about `cells` cells.

    sizes: (A, 2), strides: ascending -> for each stride its sizes (A', 2), perhaps with A' = 0.
    """
    side = np.sqrt(sizes.prod(axis=1))
    distance = np.abs(np.log(side[:, None] / (np.asarray(strides, dtype=np.float64) * cells)[None, :]))
    nearest = distance.argmin(axis=1)
    return [np.ascontiguousarray(sizes[nearest == index]) for index in range(len(strides))]


def grid_shapes(cells: int, side: int) -> Float32Array:
    """The shapes of a map of MSC-MultiBox with cells x cells cells: (11, 4) in pixels.

    side: of the square input in pixels. Each shape has the area of a square with 1.5 times the side of a cell; the
    aspect ratio 1 has three sizes. (Szegedy et al. 2014 give only the number of priors per cell. The shapes are ours.)
    cells = 1 gives one shape, the whole image: (1, 4).
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
"""The shapes of each map as plain numbers, for JSON."""


def as_numbers(shapes: Sequence[Float32Array]) -> Numbers:
    """Shapes of each map, (A, 4), as plain numbers."""
    return tuple(tuple(tuple(map(float, shape)) for shape in each) for each in shapes)


def as_shapes(numbers: Sequence[Sequence[Sequence[float]]]) -> list[Float32Array]:
    """The inverse of `as_numbers`: (A, 4) float32 for each map. Raises ValueError unless each shape has 4 numbers."""
    return [np.asarray(each, dtype=np.float32).reshape(len(each), 4) for each in numbers]


def _require_objects(count: int) -> None:
    if not count:
        raise ValueError("priors: expected objects to cluster, got none; check that the training set has boxes")


def _kmeans(points: npt.NDArray[np.float64], count: int, seed: int) -> npt.NDArray[np.float64]:
    different = np.unique(points, axis=0)
    if len(different) <= count:
        return different
    # kmeans++ (Arthur & Vassilvitskii 2007). An empty cluster keeps its centre.
    centres, _ = kmeans2(points, count, iter=50, minit="++", rng=np.random.default_rng(seed), missing="warn")
    return np.asarray(centres, dtype=np.float64)
