"""Images drawn by integer arithmetic alone: the same bytes under every version of every library."""

from __future__ import annotations

import numpy as np

from detpipe.structures import Image


def digits(count: int, below: int, seed: int = 0) -> Image:
    """`count` numbers from 0 to below - 1, uint8, by a linear congruential generator (Knuth's MMIX)."""
    state = seed
    drawn = np.empty(count, np.uint8)
    for i in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        drawn[i] = (state >> 40) % below
    return drawn


def mosaic(rows: int = 9, columns: int = 12, tile: int = 20, seed: int = 0) -> Image:
    """Tiles of many colours: many regions."""
    tiles = digits(rows * columns * 3, 256, seed).reshape(rows, columns, 3)
    return np.ascontiguousarray(tiles.repeat(tile, axis=0).repeat(tile, axis=1))


def scene(height: int = 96, width: int = 128, seed: int = 0) -> Image:
    """A ground that grows lighter, two rectangles in each other and a disc, with a little noise."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([60 + y // 4, 120 + x // 8, 200 - x // 4], axis=2).astype(np.uint8)
    image[12:61, 10:51] = 230, 40, 30
    image[30:51, 20:36] = 20, 220, 40
    image[(x - 90) ** 2 + (y - 50) ** 2 <= 625] = 240, 230, 60
    return image + digits(image.size, 12, seed).reshape(image.shape)


THINGS = np.array([[10, 12, 51, 61], [65, 25, 116, 76]], np.float32)
"""The outer rectangle and the disc of a scene."""


def noise(height: int, width: int, seed: int = 0) -> Image:
    """Every value by chance: nothing to see, and as many regions as there can be."""
    return digits(height * width * 3, 256, seed).reshape(height, width, 3)


def shades(height: int = 90, width: int = 140) -> Image:
    """Gradients that turn and break: smooth parts, long edges, all colours."""
    y, x = np.mgrid[:height, :width]
    planes = x * x // 90 + y, y * 2 + x * y // 70, 200 - x + y * y // 40
    return (np.stack(planes, axis=2) % 256).astype(np.uint8)
