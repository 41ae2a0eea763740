"""Candidates: each feature by its definition, from the regions and the pixels, one box at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detpipe.proposals.selective_search.candidates import FEATURES, Candidates, candidates
from detpipe.proposals.selective_search.colour_spaces import ColourSpace, Planes, convert
from detpipe.proposals.selective_search.grouping import Hierarchy
from detpipe.proposals.selective_search.search import Recipe, grow
from detpipe.structures import Image
from tests.proposals.pictures import mosaic, noise, scene

RECIPE = Recipe((ColourSpace.lab, ColourSpace.grey), ((60, 6), (200, 20)), 0.5, ("CTSF", "S"), 0)
PER_SEGMENTATION = 2


def tree(boxes: list, sizes: list, parents: list, similarities: list) -> Hierarchy:
    return Hierarchy(*(np.array(one, np.int32) for one in (boxes, sizes, parents, similarities)))


def of(image: Image) -> tuple[list[Hierarchy], Planes, Candidates]:
    hierarchies, grey = grow(image, RECIPE), convert(image, ColourSpace.grey)
    return hierarchies, grey, candidates(hierarchies, PER_SEGMENTATION, grey)


def told_by_trees(hierarchies: list[Hierarchy], per_segmentation: int) -> dict[tuple, dict[str, int]]:
    """Box -> its features that the hierarchies tell, in the order of first sight."""
    met: dict[tuple, list] = {}
    for g, tree in enumerate(hierarchies):
        n = len(tree.sizes)
        for r, box in enumerate(map(tuple, tree.boxes.tolist())):
            area = (box[2] - box[0]) * (box[3] - box[1])
            absorbed, lifetime, growth = 4096, 0, 1000
            if tree.parents[r] >= 0:
                p = int(tree.parents[r])
                absorbed = int(tree.similarities[p]) // 256
                lifetime = max(int(tree.similarities[r]) // 256 - absorbed, 0)
                x1, y1, x2, y2 = tree.boxes[p].tolist()
                growth = (x2 - x1) * (y2 - y1) * 1000 // area
            rank = n - 1 - r
            fill = int(tree.sizes[r]) * 1000 // area
            met.setdefault(box, []).append((g, rank, rank * 1000 // n, fill, lifetime, absorbed, growth))
    told = {}
    for box, rows in met.items():
        trees, ranks, places, fills, lifetimes, absorbed, growths = (list(column) for column in zip(*rows, strict=True))
        segmentations = {g // per_segmentation for g in trees}
        told[box] = {
            "occurrences": len(set(trees)) * 1000 // len(hierarchies),
            "place": min(places),
            "rank": min(ranks),
            "mean_place": sum(places) // len(places),
            "fill": max(fills),
            "least_fill": min(fills),
            "lifetime": max(lifetimes),
            "absorbed": min(absorbed),
            "growth": min(max(growths), 1_000_000),
            "segmentations": len(segmentations) * 1000 // (len(hierarchies) // per_segmentation),
        }
    return told


def told_by_pixels(box: tuple, grey: np.ndarray) -> dict[str, int]:
    height, width = grey.shape
    x1, y1, x2, y2 = box
    wide, high = x2 - x1, y2 - y1
    level = grey.astype(int)
    left, up = np.zeros_like(level), np.zeros_like(level)
    left[:, 1:] = abs(np.diff(level, axis=1))
    up[1:] = abs(np.diff(level, axis=0))
    summed = max(int(left.sum() + up.sum()), 1)
    across, line = 0, 1
    for x in (x1, x2):
        if 0 < x < width:
            across += int(left[y1:y2, x].sum())
            line += high
    for y in (y1, y2):
        if 0 < y < height:
            across += int(up[y, x1:x2].sum())
            line += wide
    along = sum(int(up[y1:y2, x].sum()) for x in (x1, x2 - 1)) + sum(int(left[y, x1:x2].sum()) for y in (y1, y2 - 1))
    within = int(left[y1:y2, x1:x2].sum() + up[y1:y2, x1:x2].sum())
    pixels = height * width
    return {
        "area": wide * high * 10000 // pixels,
        "width": wide * 1000 // width,
        "height": high * 1000 // height,
        "aspect": wide * 1000 // high,
        "borders": (x1 == 0) + 2 * (x2 == width) + 4 * (y1 == 0) + 8 * (y2 == height),
        "centre_x": abs(x1 + x2 - width) * 1000 // width,
        "centre_y": abs(y1 + y2 - height) * 1000 // height,
        "contrast": min(across * 2000 * pixels // (line * summed), 100_000),
        "crossing": min(along * 2000 * pixels // (2 * (wide + high) * summed), 100_000),
        "inside": min(within * 1000 * pixels // (wide * high * summed), 100_000),
    }


def cell(box: tuple) -> tuple[int, ...]:
    x1, y1, x2, y2 = box
    steps = [2 ** max(math.ceil(math.log2(side / 8)), 0) for side in (x2 - x1, y2 - y1)]
    return (
        *steps,
        (x1 + x2) // (2 * steps[0]),
        (y1 + y2) // (2 * steps[1]),
        (x2 - x1 + steps[0] // 2) // steps[0],
        (y2 - y1 + steps[1] // 2) // steps[1],
    )


@pytest.mark.parametrize(
    "image", [scene(48, 64), mosaic(4, 5, 8), noise(25, 31), noise(1, 40), noise(40, 1), noise(1, 1)]
)
def test_features_by_definition(image: Image):
    hierarchies, grey, found = of(image)
    by_trees = told_by_trees(hierarchies, PER_SEGMENTATION)
    boxes = [tuple(box) for box in found.boxes.tolist()]
    assert boxes == list(by_trees)
    columns = {name: found.features[:, place].tolist() for place, name in enumerate(FEATURES)}
    for u, box in enumerate(boxes):
        wanted = by_trees[box] | told_by_pixels(box, grey[0])
        assert {name: columns[name][u] for name in wanted} == wanted
    assert {"votes"} == set(FEATURES) - set(wanted)


@pytest.mark.parametrize("image", [scene(48, 64), mosaic(4, 5, 8)])
def test_votes_are_the_regions_of_a_cell(image: Image):
    hierarchies, _, found = of(image)
    cells: dict[tuple, int] = {}
    for hierarchy in hierarchies:
        for box in hierarchy.boxes.tolist():
            cells[cell(box)] = cells.get(cell(box), 0) + 1
    votes = found.features[:, list(FEATURES).index("votes")]
    wanted = np.array([cells[cell(box)] * 1000 // len(hierarchies) for box in found.boxes.tolist()])
    # Two cells may share a slot of the table, seldom.
    assert (votes >= wanted).all()
    assert (votes == wanted).mean() > 0.5


def test_regions_know_their_box_and_position():
    hierarchies, _, found = of(scene(48, 64))
    boxes = np.concatenate([hierarchy.boxes for hierarchy in hierarchies])
    assert np.array_equal(found.boxes[found.numbers], boxes)
    positions = [n for hierarchy in hierarchies for n in range(len(hierarchy.sizes) - 1, -1, -1)]
    assert found.positions.tolist() == positions
    assert len(np.unique(found.boxes, axis=0)) == len(found.boxes)


def test_by_hand():
    # Two halves of a row of four pixels, joined at a similarity of a half; the same again, the other way round.
    one = tree([[0, 0, 2, 1], [2, 0, 4, 1], [0, 0, 4, 1]], [2, 2, 4], [2, 2, -1], [1 << 20, 1 << 20, 1 << 19])
    other = tree([[2, 0, 4, 1], [0, 0, 2, 1], [0, 0, 4, 1]], [2, 2, 4], [2, 2, -1], [1 << 20, 1 << 20, 1 << 19])
    grey = np.array([[[0, 10, 40, 50]]], np.uint8)
    found = candidates([one, other], 1, grey)
    assert found.boxes.tolist() == [[0, 0, 2, 1], [2, 0, 4, 1], [0, 0, 4, 1]]
    left = dict(zip(FEATURES, found.features[0].tolist(), strict=True))
    assert left == {
        "occurrences": 1000, "place": 333, "rank": 1, "mean_place": 499, "fill": 1000, "least_fill": 1000,
        "lifetime": 2048, "absorbed": 2048, "growth": 2000, "segmentations": 1000, "votes": 1000,
        "area": 5000, "width": 500, "height": 1000, "aspect": 2000, "borders": 1 + 4 + 8, "centre_x": 500,
        # Steps of 10, 30, 10, a mean of 50 / 8 over both ways; 30 over a line of 1, and 1 more.
        "centre_y": 0, "contrast": 30 * 8000 // (2 * 50), "crossing": 20 * 8000 // (6 * 50), "inside": 400,
    }  # fmt: skip


def test_the_same_whatever_order_the_hierarchies_come_in():
    hierarchies, grey, found = of(scene(48, 64))
    turned = candidates(hierarchies[::-1], PER_SEGMENTATION, grey)
    one, other = (
        {tuple(b): f for b, f in zip(c.boxes.tolist(), c.features.tolist(), strict=True)} for c in (found, turned)
    )
    assert one == other


def test_a_large_image_of_steep_steps_does_not_overflow():
    side = 3000
    checks = (np.indices((side, side), np.uint8).sum(axis=0) % 2 * 255).astype(np.uint8)[None]
    whole = tree([[0, 0, side, side]], [side * side], [-1], [1 << 20])
    features = dict(zip(FEATURES, candidates([whole], 1, checks).features[0].tolist(), strict=True))
    assert features["inside"] == 1000
    assert features["area"] == 10000
    assert abs(features["crossing"] - 1000) <= 1
    assert features["contrast"] == 0
