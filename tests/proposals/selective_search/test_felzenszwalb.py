"""The segmentation: the blur beside OpenCV's, each step beside a plain one, and what holds of all segments."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.proposals.selective_search.colour_spaces import ColourSpace, Planes, convert
from detpipe.proposals.selective_search.felzenszwalb import Graph, blur, build_graph, gaussian_kernel, segment
from tests.proposals.pictures import digits, mosaic, noise, scene

SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (2, 7), (6, 5), (13, 11)]


def planes_of(height: int, width: int, channels: int = 3, below: int = 256, seed: int = 0) -> Planes:
    return digits(channels * height * width, below, seed).reshape(channels, height, width)


# --- Blur -------------------------------------------------------------------------------------------------------------


def test_kernels():
    assert gaussian_kernel(0).tolist() == [256]
    assert gaussian_kernel(0.01).tolist() == [256]
    # exp(0), exp(-2), exp(-8) over their sum 1.2713, times 256: 201.4, 27.3, 0.07.
    assert gaussian_kernel(0.5).tolist() == [0, 27, 202, 27, 0]
    for sigma in (0.3, 0.8, 1.5, 4):
        kernel = gaussian_kernel(sigma)
        assert kernel.sum() == 256
        assert (kernel == kernel[::-1]).all()
        assert (np.diff(kernel[: len(kernel) // 2 + 1]) >= 0).all()


@pytest.mark.parametrize("sigma", [0.5, 0.8, 2.0])
def test_blur_as_opencvs(sigma: float):
    planes = scene().transpose(2, 0, 1).copy()
    wanted = np.stack([cv2.GaussianBlur(plane.astype(np.float64), (0, 0), sigma) for plane in planes])
    assert np.abs(blur(planes, sigma) / 16 - wanted).max() < 1


def test_blur_by_hand():
    step = np.array([[[0, 0, 0, 100, 100, 100]]], np.uint8)
    # 27 / 256 x 100 x 16 = 168.75 beside the step; a row of one pixel is its own mirror image.
    assert blur(step, 0.5).tolist() == [[[0, 0, 169, 1431, 1600, 1600]]]
    assert blur(step, 0).tolist() == (16 * step.astype(int)).tolist()
    assert (blur(np.full((3, 1, 1), 255, np.uint8), 0.8) == 4080).all()
    assert (blur(np.full((1, 2, 3), 9, np.uint8), 5.0) == 144).all()


# --- Clusters and edges -----------------------------------------------------------------------------------------------


def all_edges(planes: Planes, sigma: float) -> dict[int, tuple[int, int, np.float32]]:
    """Number of the edge -> its two pixels, its squared distance."""
    smooth = blur(planes, sigma).astype(np.int64)
    _, height, width = smooth.shape
    edges = {}
    for y in range(height):
        for x in range(width):
            p = y * width + x
            for e, other_y, other_x in ((2 * p, y, x + 1), (2 * p + 1, y + 1, x)):
                if other_y < height and other_x < width:
                    weight = ((smooth[:, y, x] - smooth[:, other_y, other_x]) ** 2).sum()
                    edges[e] = p, other_y * width + other_x, np.float32(weight)
    return edges


def key_of(squared: np.float32) -> int:
    """The place in the sorted list: exponent and eight bits of mantissa, counted from just below those of 1."""
    if squared == 0:
        return 0
    mantissa, exponent = np.frexp(squared)
    return (int(exponent) - 1) * 256 + int((2 * mantissa - 1) * 256) + 1


class Sets:
    """Union-find, the plainest: each set is a list of members."""

    def __init__(self, count: int) -> None:
        self.of = [[i] for i in range(count)]

    def join(self, a: int, b: int) -> None:
        together = self.of[a] + self.of[b]
        for member in together:
            self.of[member] = together


def numbered(names: list[int]) -> list[int]:
    """Names by the order in which they are met first."""
    order: dict[int, int] = {}
    return [order.setdefault(name, len(order)) for name in names]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("below", [256, 2, 1])
def test_clusters_are_a_step_of_boruvkas(size: tuple[int, int], below: int):
    planes = planes_of(*size, below=below, seed=1)
    edges = all_edges(planes, 0)
    sets = Sets(size[0] * size[1])
    inside = []
    for p in range(size[0] * size[1]):
        of_pixel = [(squared, e) for e, (a, b, squared) in edges.items() if p in (a, b)]
        if of_pixel:
            squared, e = min(of_pixel)
            a, b, _ = edges[e]
            if sets.of[a] is not sets.of[b]:
                sets.join(a, b)
            inside.append((p, key_of(squared)))
    graph = build_graph(planes, 0)
    labels = numbered([id(one) for one in sets.of])
    assert graph.clusters.ravel().tolist() == labels
    assert graph.sizes.tolist() == np.bincount(labels).tolist()
    assert graph.heaviest.tolist() == [
        max([key for p, key in inside if labels[p] == c], default=0) for c in range(len(graph.sizes))
    ]


def edges_left(planes: Planes, sigma: float, clusters: list[int]) -> list[tuple[int, int, int]]:
    """(key, number, number) of clusters, sorted: without the heaviest edge around each 2x2 face."""
    _, height, width = planes.shape
    edges = all_edges(planes, sigma)
    dropped = set()
    for y in range(height - 1):
        for x in range(width - 1):
            p = y * width + x
            dropped.add(max((2 * p, 2 * p + 1, 2 * (p + 1) + 1, 2 * (p + width)), key=lambda e: (edges[e][2], e)))
    left = [
        (key_of(squared), e, clusters[a], clusters[b])
        for e, (a, b, squared) in edges.items()
        if e not in dropped and clusters[a] != clusters[b]
    ]
    return [(key, a, b) for key, _, a, b in sorted(left)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("below", "sigma"), [(256, 0), (256, 0.8), (2, 0), (4, 0.5)])
def test_edges_are_sorted_and_faces_cut(size: tuple[int, int], below: int, sigma: float):
    planes = planes_of(*size, below=below, seed=3)
    graph = build_graph(planes, sigma)
    found = [(key, a, b) for key, (a, b) in zip(graph.keys.tolist(), graph.edges.tolist(), strict=True)]
    assert found == edges_left(planes, sigma, graph.clusters.ravel().tolist())


def test_weights_are_the_roots_of_what_the_keys_stand_for():
    # A step of 3 in each of 3 channels: 27 x 16^2 = 6912 = 2^12 x 1.6875, a distance of sqrt(27).
    graph = build_graph(np.array([[[0, 0, 3, 3]]] * 3, np.uint8), 0)
    assert graph.keys.tolist() == [12 * 256 + 176 + 1]
    assert segment(graph, 2 * 27**0.5 + 1e-4, 0)[1] == 1
    assert segment(graph, 2 * 27**0.5 - 1e-4, 0)[1] == 2


# --- Segments ---------------------------------------------------------------------------------------------------------


def textbook(graph: Graph, k: float, min_size: int) -> list[int]:
    """Section 3.1 on the clusters as vertices, then the joining of small segments, in the order of the edges."""

    def distance(key: int) -> np.float32:
        """The root of the smallest squared distance with this key, in whole levels."""
        squared = Fraction(256 + (key - 1) % 256, 256) * 2 ** ((key - 1) // 256) if key else Fraction(0)
        return np.sqrt(np.float32(squared)) / np.float32(16)

    sets = Sets(len(graph.sizes))
    size = {(c,): int(graph.sizes[c]) for c in range(len(graph.sizes))}
    inside = {(c,): distance(int(graph.heaviest[c])) for c in range(len(graph.sizes))}
    pairs = list(zip(graph.keys.tolist(), graph.edges.tolist(), strict=True))
    for key, (i, j) in pairs:
        a, b = tuple(sets.of[i]), tuple(sets.of[j])
        weight = distance(key)
        bounds = [inside[one] + np.float32(k) / np.float32(size[one]) for one in (a, b)]
        if a != b and weight <= min(bounds):
            sets.join(i, j)
            size[tuple(sets.of[i])], inside[tuple(sets.of[i])] = size[a] + size[b], weight
    for _, (i, j) in pairs:
        a, b = tuple(sets.of[i]), tuple(sets.of[j])
        if a != b and min(size[a], size[b]) < min_size:
            sets.join(i, j)
            size[tuple(sets.of[i])] = size[a] + size[b]
    of_cluster = numbered([id(one) for one in sets.of])
    return numbered([of_cluster[c] for c in graph.clusters.ravel()])


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from([1, 3]),
    st.sampled_from([2, 30, 256]),
    st.sampled_from([0, 0.5, 0.8]),
    st.integers(1, 600),
    st.integers(0, 30),
    st.integers(0, 10**6),
)
def test_segments_are_the_textbooks(
    size: tuple[int, int], channels: int, below: int, sigma: float, k: int, min_size: int, seed: int
):
    graph = build_graph(planes_of(*size, channels, below, seed), sigma)
    labels, count = segment(graph, k, min_size)
    assert labels.shape == size
    assert labels.ravel().tolist() == textbook(graph, k, min_size)
    assert count == labels.max() + 1


def segmentations() -> Iterator[tuple[Planes, int, int]]:
    for image in (
        scene(),
        mosaic(5, 6, 9),
        noise(40, 50),
        np.full((30, 20, 3), 9, np.uint8),
        noise(1, 90),
        noise(90, 1),
    ):
        for space in (ColourSpace.lab, ColourSpace.grey):
            for k, min_size in ((50, 0), (100, 20), (300, 100)):
                yield convert(image, space), k, min_size


def test_what_holds_of_all_segments():
    for planes, k, min_size in segmentations():
        graph = build_graph(planes, 0.8)
        labels, count = segment(graph, k, min_size)
        names, first, sizes = np.unique(labels, return_index=True, return_counts=True)
        assert names.tolist() == list(range(count))
        assert (np.diff(first) > 0).all(), "numbered by their first pixels"
        assert graph.sizes.sum() == labels.size
        if count > 1:
            assert sizes.min() >= min_size
        for name in names:
            pieces, _ = cv2.connectedComponents((labels == name).astype(np.uint8), connectivity=4)
            assert pieces == 2, "ground and one piece"


def test_flat_and_single():
    for size in SIZES:
        labels, count = segment(build_graph(np.full((3, *size), 7, np.uint8), 0.8), 1, 0)
        assert count == 1
        assert not labels.any()


def test_two_halves():
    halves = np.zeros((1, 6, 8), np.uint8)
    halves[:, :, 5:] = 100
    labels, count = segment(build_graph(halves, 0), 50, 0)
    assert count == 2
    assert np.array_equal(labels, halves[0] > 0)
    # 30 + 18 pixels: what is smaller than 20 is joined.
    assert segment(build_graph(halves, 0), 50, 18)[1] == 2
    assert segment(build_graph(halves, 0), 50, 19)[1] == 1


def test_a_larger_k_prefers_larger_segments():
    graph = build_graph(convert(noise(60, 80), ColourSpace.lab), 0.8)
    counts = [segment(graph, k, 0)[1] for k in (20, 100, 500, 3000)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[-1]


@pytest.mark.skipif(not hasattr(cv2, "ximgproc"), reason="this OpenCV has no ximgproc")
@pytest.mark.parametrize("k", [100, 200, 400])
def test_about_as_many_as_opencvs(k: int):
    for image in (scene(), mosaic()):
        theirs = cv2.ximgproc.segmentation.createGraphSegmentation(0.8, k, 50).processImage(image)
        count = segment(build_graph(image.transpose(2, 0, 1).copy(), 0.8), k, 50)[1]
        assert count == pytest.approx(len(np.unique(theirs)), rel=0.25)


@pytest.mark.skipif(not hasattr(cv2, "ximgproc"), reason="this OpenCV has no ximgproc")
def test_more_than_opencvs_where_all_is_smooth():
    # Pixels that were joined at first take less of a heavier edge than single ones: k / 4 and k.
    image = cv2.GaussianBlur(cv2.resize(noise(12, 16), (160, 120), interpolation=cv2.INTER_CUBIC), (0, 0), 1.5)
    theirs = cv2.ximgproc.segmentation.createGraphSegmentation(0.8, 200, 50).processImage(image)
    count = segment(build_graph(image.transpose(2, 0, 1).copy(), 0.8), 200, 50)[1]
    assert 1 <= count / len(np.unique(theirs)) < 3
