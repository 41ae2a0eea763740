"""Overlapping tiles of large images, so that small objects reach a network at a useful size.

A tile is a window (x1, y1, x2, y2) of an image in whole pixels, x2 and y2 excluded. Objects and boxes that a tile cuts
are told apart by where they lie: see `Windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detpipe import boxes as geometry
from detpipe.structures import BoolArray, Float32Array, Int64Array

Window = tuple[int, int, int, int]
"""x1 y1 x2 y2 of a part of an image."""

SMALLEST = 32
"""Smallest side of a tile in pixels."""

OBJECT_SHARE = 0.75
"""Training: the share of the tiles that are drawn around an object. The others are drawn anywhere in the image."""

WHOLE_SHARE = 0.5
"""Training: the share of the images that are used whole, if the whole image counts as a tile."""

MARGIN = 8
"""A tile keeps the boxes whose centre is in its own part of the image, or at most overlap / MARGIN beside it."""

TOUCHES = 50
"""A box touches a border if it is within side / TOUCHES of it, and within 2 pixels in small tiles."""


@dataclass(kw_only=True)
class TilesConfig:
    """Tiles of large images."""

    size: int | None = None
    """Side of the square tiles in pixels of the image. A smaller image is one tile. 0: no tiles. null: no tiles; in
    detection, the tiles of the training."""
    overlap: int | None = None
    """Overlap of neighbouring tiles in pixels, at most half the size. An object that is not larger than the overlap is
    whole in at least one tile. null: a quarter of the size."""
    whole: bool = True
    """Also use the whole image, for objects that are larger than a tile."""

    def __post_init__(self) -> None:
        if self.size and self.size < SMALLEST:
            raise ValueError(f"tiles: expected a size of at least {SMALLEST} pixels, or 0: none, got {self.size}")
        if self.overlap is not None and not self.size:
            raise ValueError(
                f"overlap: expected the size of tiles beside it, got {self.overlap} alone; give tiles=SIZE"
            )
        if self.size and not 0 <= self.overlap_pixels <= self.size // 2:
            raise ValueError(
                f"overlap: expected 0 to {self.size // 2} pixels, half of the tiles' size, got {self.overlap}"
            )

    @property
    def used(self) -> bool:
        """Whether there are tiles."""
        return bool(self.size)

    @property
    def overlap_pixels(self) -> int:
        """The overlap. 0 without tiles."""
        return self.overlap if self.overlap is not None else (self.size or 0) // 4


def tile_grid(image_size: tuple[int, int], tiles: TilesConfig) -> list[Window]:
    """The tiles of an image of (height, width), row by row.

    They cover every pixel. Neighbours overlap by `tiles.overlap`; the last row and column are shifted inwards, so that
    each tile is full. Without tiles, the whole image is the only window.
    """
    height, width = image_size
    size = tiles.size or max(image_size)
    rows, columns = (_starts(side, size, tiles.overlap_pixels) for side in image_size)
    return [(x, y, min(x + size, width), min(y + size, height)) for y in rows for x in columns]


def _starts(side: int, size: int, overlap: int) -> list[int]:
    last = max(side - size, 0)
    return [*range(0, last, size - overlap), last]


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of an image in detection: its tiles and, if it counts as one, the whole image.

    Each tile owns the boxes whose centre is in its part of the image. The parts of two neighbours meet in the middle of
    their overlap, and reach a margin beyond it. So a box that is not larger than three quarters of the overlap is found
    whole in the tile that owns it, and what other tiles see of it, whole or cut, is not theirs. A larger object may be
    cut in every tile. Its parts touch an inner border of their tile.

    image_size: (height, width). windows: (W, 4) int64, the tiles row by row, then the whole image, if it is one.
    owned: (W, 4) float32, x1 y1 x2 y2 of the part of each window; infinite at the borders of the image.
    has_whole: whether the last window is the whole image beside its tiles.
    """

    image_size: tuple[int, int]
    windows: Int64Array
    owned: Float32Array
    has_whole: bool

    @classmethod
    def of(cls, image_size: tuple[int, int], tiles: TilesConfig) -> Windows:
        """The windows of an image. If one tile covers it, this is the only window."""
        height, width = image_size
        grid = np.array(tile_grid(image_size, tiles), dtype=np.int64)
        columns, rows = _parts(grid[:, [0, 2]], tiles), _parts(grid[:, [1, 3]], tiles)
        owned = np.stack([columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]], axis=1)
        has_whole = tiles.whole and len(grid) > 1
        if has_whole:
            grid = np.concatenate([grid, [[0, 0, width, height]]])
            owned = np.concatenate([owned, [[-np.inf, -np.inf, np.inf, np.inf]]])
        return cls(image_size, grid, owned.astype(np.float32), has_whole)

    def __len__(self) -> int:
        return len(self.windows)

    def window(self, index: int) -> Window:
        """A window as four integers."""
        x1, y1, x2, y2 = self.windows[index].tolist()
        return x1, y1, x2, y2

    def owns(self, index: int, boxes: Float32Array) -> BoolArray:
        """(N, 4) boxes in pixels of the image -> (N,) whether the window owns them. N = 0 gives (0,)."""
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        part = self.owned[index]
        return np.asarray(((centres >= part[:2]) & (centres <= part[2:])).all(axis=1), dtype=np.bool_)

    def cuts(self, index: int, boxes: Float32Array) -> BoolArray:
        """(N, 4) boxes in pixels of the image -> (N,) whether they touch a border of the window inside the image."""
        x1, y1, x2, y2 = self.window(index)
        near = max(2.0, max(x2 - x1, y2 - y1) / TOUCHES)
        height, width = self.image_size
        inner = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
        close = np.concatenate(
            [boxes[:, :2] <= np.array([x1, y1]) + near, boxes[:, 2:] >= np.array([x2, y2]) - near], axis=1
        )
        return np.asarray((close & inner).any(axis=1), dtype=np.bool_)

    def of_boxes(self, boxes: Float32Array) -> Int64Array:
        """The window that shows each box best: (N, 4) in pixels of the image -> (N,) int64; N = 0 gives (0,).

        Of the tiles that contain the box, it is the one whose centre is nearest. For a box that no tile contains it is
        the whole image or, if that is not a window, the tile with the largest part of the box.
        """
        frames = self.windows.astype(np.float32)
        offset = (boxes[:, None, :2] + boxes[:, None, 2:] - frames[:, :2] - frames[:, 2:]) / 2
        distance = np.square(offset).sum(axis=2)
        contained = ((boxes[:, None, :2] >= frames[:, :2]) & (boxes[:, None, 2:] <= frames[:, 2:])).all(axis=2)
        if self.has_whole:
            distance[:, -1] = np.finfo(np.float32).max  # it contains every box, but tiles come first
        visible = np.where(contained, np.float32(np.inf), geometry.intersection(boxes, frames))
        best = visible == visible.max(axis=1, keepdims=True)
        return np.asarray(np.where(best, distance, np.inf).argmin(axis=1), dtype=np.int64)


def _parts(intervals: Int64Array, tiles: TilesConfig) -> npt.NDArray[np.float64]:
    """The owned part of each tile (T, 2) along one side of the image -> (T, 2), from the (start, end) of the tiles."""
    starts = np.unique(intervals[:, 0])
    ends = np.unique(intervals[:, 1])
    middles = (starts[1:] + ends[:-1]) / 2
    margin = tiles.overlap_pixels / MARGIN
    low = np.concatenate([[-np.inf], middles - margin])
    high = np.concatenate([middles + margin, [np.inf]])
    index = np.searchsorted(starts, intervals[:, 0])
    return np.stack([low[index], high[index]], axis=1)


def random_window(
    image_size: tuple[int, int], objects: Float32Array, tiles: TilesConfig, generator: np.random.Generator
) -> Window:
    """A window for training: a tile around a random object, a tile anywhere, or the whole image.

    objects: (G, 4), those to learn from; G may be 0. An object that fits into a tile is whole in a tile around it; of a
    larger one, the tile shows a part.
    """
    height, width = image_size
    if tiles.whole and generator.random() < WHOLE_SHARE:
        return 0, 0, width, height
    size = tiles.size or max(image_size)
    around = objects[generator.integers(len(objects))] if generator.random() < OBJECT_SHARE and len(objects) else None
    starts = []
    for axis, side in enumerate((width, height)):
        last = max(side - size, 0)
        low, high = 0, last
        if around is not None:
            # From where the object's end is in the tile to where its start is; the other way around if it is larger.
            ends = int(np.ceil(around[axis + 2])) - size, int(np.floor(around[axis]))
            low, high = (min(max(one, 0), last) for one in sorted(ends))
        starts.append(int(generator.integers(low, high, endpoint=True)))
    x, y = starts
    return x, y, min(x + size, width), min(y + size, height)


def fullest_window(image_size: tuple[int, int], objects: Float32Array, tiles: TilesConfig) -> Window:
    """The tile with most of the objects' (G, 4) centres, the first of equals: the same in each validation."""
    centres = (objects[:, :2] + objects[:, 2:]) / 2
    grid = tile_grid(image_size, tiles)
    return max(grid, key=lambda tile: int(((centres >= tile[:2]) & (centres < tile[2:])).all(axis=1).sum()))


def in_turn(lengths: Sequence[int]) -> Int64Array:
    """The order of joined lists that are each sorted best first: the best of each list, then the second best, ...

    lengths of the lists -> (sum of them,) int64 indices into the joined lists. No lists give (0,).
    """
    ranks = np.concatenate([np.arange(length) for length in lengths] or [np.zeros(0, dtype=np.int64)])
    return np.argsort(ranks, kind="stable").astype(np.int64)
