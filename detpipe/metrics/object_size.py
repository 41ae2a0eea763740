"""Small, medium and large objects, as COCO has them."""

from __future__ import annotations

from detpipe.structures import BoolArray, Float32Array

SIZES: dict[str, tuple[float, float]] = {
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, float("inf")),
}
"""From the name of a size to its areas in pixels: from the first number on, below the second.

COCO counts an object of exactly 32² or 96² in both sizes; here each has one.
"""


def of_size(areas: Float32Array, name: str) -> BoolArray:
    """Which areas are of the size. (n,) float32 -> (n,) bool. Raises KeyError for a name that SIZES doesn't have."""
    least, bound = SIZES[name]
    chosen: BoolArray = (areas >= least) & (areas < bound)
    return chosen
