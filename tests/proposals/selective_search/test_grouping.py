"""The grouping: neighbours by brute force, and each merger worked out anew from all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.proposals.selective_search.colour_spaces import ColourSpace, convert
from detpipe.proposals.selective_search.felzenszwalb import Int32Array, build_graph, segment
from detpipe.proposals.selective_search.grouping import MAX_SEGMENTS, Hierarchy, Segments, find_segments, group
from detpipe.proposals.selective_search.histograms import UNIT, Histograms, pixel_codes, region_histograms
from detpipe.structures import Image
from tests.proposals.pictures import digits, mosaic, noise, scene

SIMILARITIES = ["CTSF", "TSF", "C", "T", "S", "F"]
LABELS = np.array([[0, 0, 1], [0, 2, 1], [3, 2, 2]], np.int32)


def test_segments_by_hand():
    segments = find_segments(LABELS, 4)
    assert segments.boxes.tolist() == [[0, 0, 2, 2], [2, 0, 3, 2], [1, 1, 3, 3], [0, 2, 1, 3]]
    assert segments.sizes.tolist() == [3, 2, 3, 1]
    # As a scan meets them; 2 touches 0 by a corner as well.
    assert segments.pairs.tolist() == [[0, 1], [0, 2], [1, 2], [0, 3], [2, 3]]


def test_one_segment_has_no_neighbour():
    segments = find_segments(np.zeros((2, 3), np.int32), 1)
    assert segments.boxes.tolist() == [[0, 0, 3, 2]]
    assert segments.pairs.shape == (0, 2)


@pytest.mark.parametrize(("size", "count"), [((1, 5), 3), ((5, 1), 3), ((12, 9), 5), ((50, 60), 3000)])
def test_neighbours_by_brute_force(size: tuple[int, int], count: int):
    raw = np.arange(count) if count == size[0] * size[1] else digits(size[0] * size[1], count, 2)
    labels = np.unique(raw, return_inverse=True)[1].reshape(size).astype(np.int32)
    count = int(labels.max()) + 1
    segments = find_segments(labels, count)
    met = []
    for y in range(size[0]):
        for x in range(size[1]):
            for other_y, other_x in ((y, x - 1), (y - 1, x), (y - 1, x - 1)):
                if min(other_y, other_x) >= 0 and labels[y, x] != labels[other_y, other_x]:
                    met.append(tuple(sorted((int(labels[y, x]), int(labels[other_y, other_x])))))
    assert [tuple(pair) for pair in segments.pairs.tolist()] == list(dict.fromkeys(met))
    for region in range(0, count, max(count // 20, 1)):
        rows, columns = np.nonzero(labels == region)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert segments.boxes[region].tolist() == box
        assert segments.sizes[region] == len(rows)


def of_image(image: Image, k: int = 60, min_size: int = 5) -> tuple[Int32Array, Segments, Histograms, Histograms]:
    planes = convert(image, ColourSpace.lab)
    labels, count = segment(build_graph(planes, 0.5), k, min_size)
    segments = find_segments(labels, count)
    return labels, segments, *region_histograms(pixel_codes(planes), labels, segments.sizes)


def plain_group(
    labels: Int32Array, segments: Segments, colour: Histograms, texture: Histograms, similarity: str
) -> list[list]:
    """Algorithm 1 of the paper with nothing kept: [box, size, parent, similarity] of each region.

    At each merger every region's box and size come from its pixels and all pairs of neighbours are compared.
    """
    pixels = {r: labels == r for r in range(len(segments.sizes))}
    row = {r: (colour[r].astype(int), texture[r].astype(int)) for r in pixels}
    near = {frozenset(pair) for pair in segments.pairs.tolist()}
    one = texture.shape[1] // 10 * UNIT
    per_pixel = (one << 16) // labels.size
    regions = []

    def enter(r: int, alike: int) -> None:
        rows, columns = np.nonzero(pixels[r])
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        regions.append([box, len(rows), -1, alike])

    def alike(a: int, b: int) -> int:
        together = pixels[a] | pixels[b]
        rows, columns = np.nonzero(together)
        around = (rows.max() + 1 - rows.min()) * (columns.max() + 1 - columns.min())
        parts = {
            "C": 8 * np.minimum(row[a][0], row[b][0]).sum(),
            "T": np.minimum(row[a][1], row[b][1]).sum(),
            "S": (labels.size - together.sum()) * per_pixel >> 16,
            "F": (labels.size - (around - together.sum())) * per_pixel >> 16,
        }
        return int(sum(parts[letter] for letter in similarity))

    for r in range(len(segments.sizes)):
        enter(r, 1 << 20)
    while near:
        # The most similar; of equal pairs the one whose younger region is the oldest.
        most, b, a = min((-alike(*pair), max(pair), min(pair)) for pair in map(tuple, near))
        new = len(regions)
        share = (2 * regions[a][1] * 32768 + regions[a][1] + regions[b][1]) // (2 * (regions[a][1] + regions[b][1]))
        row[new] = tuple(
            (one * share + two * (32768 - share) + 16384) >> 15 for one, two in zip(row[a], row[b], strict=True)
        )
        pixels[new] = pixels[a] | pixels[b]
        regions[a][2] = regions[b][2] = new
        enter(new, (-most << 20) // (len(similarity) * one))
        near = {frozenset(new if r in (a, b) else r for r in pair) for pair in near} - {frozenset([new])}
    return regions


def as_rows(hierarchy: Hierarchy) -> list[list]:
    return [list(one) for one in zip(*(column.tolist() for column in hierarchy), strict=True)]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("image", [mosaic(3, 4, 5), noise(14, 20), scene()[8:64:3, 8:60:3].copy(), noise(1, 60)])
def test_grouped_as_worked_out_anew(image: Image, similarity: str):
    labels, segments, colour, texture = of_image(image)
    assert 3 <= len(segments.sizes) <= 60
    before = colour.tobytes(), texture.tobytes()
    hierarchy = group(segments, colour, texture, similarity, labels.size)
    assert as_rows(hierarchy) == plain_group(labels, segments, colour, texture, similarity)
    assert (colour.tobytes(), texture.tobytes()) == before, "histograms serve the next similarity as well"


def check_tree(hierarchy: Hierarchy, count: int, height: int, width: int) -> None:
    boxes, sizes, parents, similarities = hierarchy
    assert len(sizes) == 2 * count - 1
    assert parents[-1] == -1
    assert (parents[:-1] > np.arange(len(parents) - 1)).all()
    assert boxes[-1].tolist() == [0, 0, width, height]
    assert sizes[-1] == height * width
    assert (similarities[:count] == 1 << 20).all()
    assert similarities.min() >= 0
    # Means of histograms are rounded to the nearest, so a sum of bins may pass its bound by a hair.
    assert similarities.max() <= (1 << 20) * 1.001
    for merger in range(count, 2 * count - 1):
        a, b = np.flatnonzero(parents == merger)
        assert sizes[merger] == sizes[a] + sizes[b]
        assert boxes[merger, :2].tolist() == np.minimum(boxes[a, :2], boxes[b, :2]).tolist()
        assert boxes[merger, 2:].tolist() == np.maximum(boxes[a, 2:], boxes[b, 2:]).tolist()


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 200),
    st.integers(0, 20),
    st.sampled_from(SIMILARITIES),
    st.integers(0, 999),
)
def test_what_holds_of_all_trees(size: tuple[int, int], k: int, min_size: int, similarity: str, seed: int):
    labels, segments, colour, texture = of_image(noise(*size, seed=seed), k, min_size)
    hierarchy = group(segments, colour, texture, similarity, labels.size)
    check_tree(hierarchy, len(segments.sizes), *size)


def test_many_neighbours_of_one():
    # A ground with hundreds of dots on it: the list of its neighbours is written again at each merger.
    labels = np.zeros((81, 81), np.int32)
    labels[1::4, 1::4] = np.arange(1, 401).reshape(20, 20)
    segments = find_segments(labels, 401)
    colour, texture = (np.zeros((401, bins), np.uint16) for bins in (75, 240))
    for similarity in ("S", "F"):
        check_tree(group(segments, colour, texture, similarity, labels.size), 401, 81, 81)


def test_one_segment_is_the_whole():
    image = np.full((3, 4, 3), 9, np.uint8)
    labels, segments, colour, texture = of_image(image)
    hierarchy = group(segments, colour, texture, "CTSF", labels.size)
    assert as_rows(hierarchy) == [[[0, 0, 4, 3], 12, -1, 1 << 20]]


def test_too_many_segments_are_refused():
    many = MAX_SEGMENTS + 1
    segments = Segments(np.zeros((many, 4), np.int32), np.ones(many, np.int32), np.zeros((0, 2), np.int32))
    with pytest.raises(ValueError, match=r"lower proposals\.max_side"):
        group(segments, np.zeros((many, 1), np.uint16), np.zeros((many, 1), np.uint16), "C", many)
