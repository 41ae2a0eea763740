"""An object of one training image pasted beside an object of another (copy-paste: Dwibedi et al. 2017, "Cut, Paste and
Learn"; Ghiasi et al. 2021), so that images with one object each also teach what two that touch look like.

There are no masks: what is pasted is the object's box with some of what is around it, faded out towards the corners.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from detpipe import boxes as geometry
from detpipe.network.scaled_image import Scaling
from detpipe.structures import BoolArray, Float32Array, GroundTruth, Image

SEEN_SHARE = 0.75
"""Of the pasted object and of each that was there at least this share stays in sight. With half of it, parts of objects
were found as objects (BENCHMARKS.md)."""

TRIES = 10
"""Places are drawn until one leaves all in sight, but not for ever; then nothing is pasted."""

STRETCH = 1.5
"""The pasted object is as large as the one beside it, up to this factor of its sides."""

NEAREST, FARTHEST = 0.7, 1.0
"""Its centre is so far away along one axis, in half the sum of both sides: at 1 they touch."""

ASIDE = 0.25
"""... and by up to this share of the other's side along the other axis."""

MARGIN = 0.1
"""Of what is around the box so much of its sides is pasted as well, faded out."""

SMALLEST = 8
"""Pixels of a side below which nothing is cut out, or pasted."""


def paste_beside(
    image: Image, truth: GroundTruth, donor: Image, donated: GroundTruth, generator: np.random.Generator
) -> tuple[Image, GroundTruth]:
    """`image` with an object of `donor` beside one of its own, which it may cover in part, and all its objects then.

    image, donor: (H, W, 3), with their objects; difficult ones and crowds are not pasted, and nothing is pasted beside
    them. The new object comes last. Of one that is covered from side to side the box ends where the new one begins.
    Without objects in either, or a place, they are returned as they are.
    """
    beside = np.flatnonzero(usable(truth, image))
    pasted = np.flatnonzero(usable(donated, donor))
    if not len(beside) or not len(pasted):
        return image, truth
    source = donated[pasted[[generator.integers(len(pasted))]]]
    source = replace(source, boxes=geometry.clip(source.boxes, donor.shape[:2]))
    for _ in range(TRIES):
        neighbour = truth.boxes[beside[generator.integers(len(beside))]]
        box = _place(neighbour, source.boxes[0], generator)
        seen = geometry.clip(box[None], image.shape[:2])
        if _all_in_sight(box, seen, truth):
            mirrored = bool(generator.random() < 0.5)
            factor = geometry.area(seen) / geometry.area(source.boxes)
            new = replace(source, boxes=seen, areas=source.areas * factor)
            return _blend(image, donor, source.boxes[0], box, mirrored=mirrored), _joined(behind(truth, seen[0]), new)
    return image, truth


def usable(truth: GroundTruth, image: Image) -> BoolArray:
    """(G,): which objects count, and are large enough on the image to be pasted."""
    seen = geometry.clip(truth.boxes, image.shape[:2])
    large = (seen[:, 2:] - seen[:, :2] >= SMALLEST).all(axis=1)
    return np.asarray(large & ~truth.difficult & ~truth.crowd)


def behind(truth: GroundTruth, cover: Float32Array) -> GroundTruth:
    """The objects as they are seen behind a box (4,): one that is covered from side to side ends where it begins."""
    boxes = truth.boxes.copy()
    for low, high in ((0, 2), (1, 3)):
        near, far = 1 - low, 5 - high  # the edges across
        spanned = (cover[near] <= truth.boxes[:, near]) & (cover[far] >= truth.boxes[:, far])
        starts_in = spanned & (cover[low] <= boxes[:, low]) & (cover[high] > boxes[:, low])
        ends_in = spanned & (cover[high] >= boxes[:, high]) & (cover[low] < boxes[:, high])
        boxes[:, low] = np.where(starts_in, np.minimum(cover[high], boxes[:, high]), boxes[:, low])
        boxes[:, high] = np.where(ends_in & ~starts_in, np.maximum(cover[low], boxes[:, low]), boxes[:, high])
    whole = geometry.area(truth.boxes)
    hidden = geometry.intersection(truth.boxes, cover[None])[:, 0]
    share = np.divide(whole - hidden, whole, out=np.ones_like(whole), where=whole > 0)
    return replace(truth, boxes=boxes, areas=truth.areas * share)


def _place(neighbour: Float32Array, source: Float32Array, generator: np.random.Generator) -> Float32Array:
    """Where an object (4,) comes to stand beside another (4,); whole pixels, also outside of the image."""
    sides, other = source[2:] - source[:2], neighbour[2:] - neighbour[:2]
    factor = np.sqrt(other.prod() / sides.prod()) * np.exp(generator.uniform(-np.log(STRETCH), np.log(STRETCH)))
    sides = np.maximum(sides * factor, SMALLEST)
    axis = int(generator.integers(2))
    away = np.empty(2)
    away[axis] = generator.choice([-1, 1]) * generator.uniform(NEAREST, FARTHEST) * (sides + other)[axis] / 2
    away[1 - axis] = generator.uniform(-ASIDE, ASIDE) * other[1 - axis]
    corner = (neighbour[:2] + neighbour[2:]) / 2 + away - sides / 2
    return np.round(np.concatenate([corner, corner + sides])).astype(np.float32)


def _all_in_sight(box: Float32Array, seen: Float32Array, truth: GroundTruth) -> bool:
    """Whether enough of a box (4,), clipped (1, 4), and of all objects is seen when it stands before them."""
    inside = geometry.area(seen)[0] >= SEEN_SHARE * geometry.area(box[None])[0]
    large = (seen[0, 2:] - seen[0, :2] >= SMALLEST).all()
    hidden = geometry.intersection(truth.boxes, seen)[:, 0]
    in_sight = (hidden <= (1 - SEEN_SHARE) * geometry.area(truth.boxes)) | truth.crowd
    return bool(inside and large and in_sight.all())


def _blend(image: Image, donor: Image, source: Float32Array, box: Float32Array, *, mirrored: bool) -> Image:
    """A copy of the image with what is in and around the donor's box `source` (4,) at `box` (4,), whole pixels."""
    centre, half = _centre_and_half(box)
    source_centre, source_half = _centre_and_half(source)
    grown = np.concatenate([source[:2] - 2 * MARGIN * source_half, source[2:] + 2 * MARGIN * source_half])
    cut = geometry.clip(np.concatenate([np.floor(grown[:2]), np.ceil(grown[2:])])[None], donor.shape[:2])[0]
    # From the box's centre, in half its sides, what is cut out reaches from `low` to `high`.
    low, high = (cut[:2] - source_centre) / source_half, (cut[2:] - source_centre) / source_half
    if mirrored:
        low[0], high[0] = -high[0], -low[0]
    left, top, right, bottom = (
        np.round(np.concatenate([centre + low * half, centre + high * half])).astype(int).tolist()
    )
    from_left, from_top, from_right, from_bottom = cut.astype(int).tolist()
    crop = donor[from_top:from_bottom, from_left:from_right]
    pixels = Scaling(crop.shape[:2], (max(bottom - top, 1), max(right - left, 1)), mirrored).pixels(crop)
    result = image.copy()
    rows, columns = slice(max(top, 0), bottom), slice(max(left, 0), right)
    window = result[rows, columns]
    pixels = pixels[rows.start - top :, columns.start - left :][: window.shape[0], : window.shape[1]]
    x = (columns.start + np.arange(window.shape[1], dtype=np.float32) + 0.5 - centre[0]) / half[0]
    y = (rows.start + np.arange(window.shape[0], dtype=np.float32) + 0.5 - centre[1]) / half[1]
    opaque = _opaque(x, y)[..., None]
    window[:] = np.rint(window + opaque * (pixels.astype(np.float32) - window))
    return result


def _opaque(x: Float32Array, y: Float32Array) -> Float32Array:
    """(H, W): how much of the pasted object is seen at columns x (W,) and rows y (H,), -1 to 1 from edge to edge of its
    box: 1 within a superellipse through the middle of the edges, falling to 0 at one with the margins around it."""
    edge = np.float32(1 + 2 * MARGIN)
    radius = np.sqrt(np.sqrt((x**4)[None] + (y**4)[:, None]))
    return np.asarray(np.clip((edge - radius) / (edge - 1), 0, 1), dtype=np.float32)


def _centre_and_half(box: Float32Array) -> tuple[Float32Array, Float32Array]:
    """The centre (2,) and half the sides (2,) of a box (4,)."""
    low, high = box[:2], box[2:]
    return np.asarray((low + high) / 2, dtype=np.float32), np.asarray((high - low) / 2, dtype=np.float32)


def _joined(truth: GroundTruth, new: GroundTruth) -> GroundTruth:
    return GroundTruth(
        np.concatenate([truth.boxes, new.boxes]),
        np.concatenate([truth.labels, new.labels]),
        np.concatenate([truth.difficult, new.difficult]),
        np.concatenate([truth.crowd, new.crowd]),
        np.concatenate([truth.areas, new.areas]),
    )
