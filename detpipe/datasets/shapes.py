"""The upright boxes around shapes of labelling tools: rotated boxes, ellipses, outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detpipe.datasets.entry import FARTHEST, read_number

Box = tuple[float, float, float, float]


def around_points(points: Sequence[tuple[float, float]]) -> Box:
    """x1 y1 x2 y2 around at least one point x y. Raises ValueError without points."""
    if not points:
        raise ValueError("expected points, got none")
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def around_rotated(box: Box, degrees: float, centre: tuple[float, float]) -> Box:
    """The upright box around a box x1 y1 x2 y2 that is rotated around a point, clockwise as it is seen."""
    if not degrees % 360:
        return box
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    x1, y1, x2, y2 = box
    cx, cy = centre
    offsets = [(x - cx, y - cy) for x in (x1, x2) for y in (y1, y2)]
    return around_points([(cx + dx * cos - dy * sin, cy + dx * sin + dy * cos) for dx, dy in offsets])


def around_ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Box:
    """The upright box around an ellipse with radii rx and ry that is rotated around its centre."""
    angle = math.radians(degrees) if degrees % 180 else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def coordinate(value: object, what: str) -> float:
    """A number of pixels from a file. Raises ValueError that begins with `what`."""
    if isinstance(value, bool) or (isinstance(value, str) and len(value) > 100):
        raise ValueError(f"{what}: expected a number, got {str(value)[:100]!r}")
    number = read_number(value, what)
    if abs(number) > FARTHEST:
        raise ValueError(f"{what}: expected pixels, got {number:g}")
    return number
