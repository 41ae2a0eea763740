"""Resizing in the graph: OpenCV's pixels and Python's sizes."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.classify.export.onnx_graph import Graph, Value
from detpipe.classify.export.resizing import resized, size_by_multiples, size_by_side
from detpipe.classify.features.extractor import shown_size
from detpipe.network.scaled_image import Scaling
from tests.classify.export.running import ran, smooth

pytest.importorskip("onnxruntime")


def to_side(graph: Graph, image: Value) -> list[Value]:
    height, width = image.size(0), image.size(1)
    return [resized(graph, image, height, width, *size_by_side(height, width, 96, 160))]


@pytest.mark.parametrize(
    "size", [(192, 256), (96, 96), (60, 80), (131, 177), (40, 400), (400, 40), (1, 1), (5, 2), (288, 384), (100, 96)]
)
def test_pixels_are_those_of_opencv(size: tuple[int, int]) -> None:
    image = smooth(*size)
    wanted = Scaling.to_side(size, 96, 160).pixels(image)
    (found,) = ran({"image": image}, to_side)
    assert found.shape == wanted.shape
    difference = np.abs(found - wanted)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.005


def test_each_axis_alone() -> None:
    image = smooth(64, 48)
    for size in ((32, 48), (64, 24), (128, 48), (64, 96), (32, 96), (128, 24), (64, 48)):
        wanted = Scaling((64, 48), size).pixels(image)

        def build(graph: Graph, image: Value, size: tuple[int, int] = size) -> list[Value]:
            to = [graph.value(side, np.int64) for side in size]
            return [resized(graph, image, image.size(0), image.size(1), *to)]

        (found,) = ran({"image": image}, build)
        assert np.abs(found - wanted).max() <= 1
        assert (found != wanted).mean() <= 0.005


def test_sizes_are_those_of_python() -> None:
    """Also those halfway between two numbers, as of images of 3 : 2 in steps of 64."""
    generator = np.random.default_rng(0)
    sizes = [(500, 750), (600, 400), (600, 900), (448, 455), (1, 1), *generator.integers(1, 4000, (60, 2)).tolist()]

    def build(graph: Graph, size: Value) -> list[Value]:
        height, width = size.take(0), size.take(1)
        sides = [*size_by_side(height, width, 352, 640), *size_by_multiples(height, width, 320, 64, 4096)]
        return [graph.shape(*sides)]

    for size in sizes:
        (found,) = ran({"size": np.array(size, dtype=np.int64)}, build)
        image_size = (size[0], size[1])
        assert found.tolist() == [*Scaling.to_side(image_size, 352, 640).input_size, *shown_size(image_size, 320, 32)]
