"""Crops in the graph: the pixels of `crop_regions`."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.settings import CropConfig, CropMode
from detpipe.classify.export.crops import in_batches, ripmap
from detpipe.classify.export.onnx_graph import Graph, Value
from tests.classify.export.running import ran, smooth, some_boxes

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("mode", list(CropMode))
@pytest.mark.parametrize("count", [40, 1])
def test_pixels(mode: CropMode, count: int) -> None:
    """Regions from tiny to the whole image: enlarged, at full size, and from halved copies; partly outside."""
    config = CropConfig(size=24, mode=mode, fill=[10, 127, 250])
    image, boxes = smooth(150, 203), some_boxes(count, 150, 203)
    boxes[0] = 0, 0, 203, 150

    def build(graph: Graph, image: Value, boxes: Value) -> list[Value]:
        return in_batches(graph, boxes, ripmap(graph, image, config), lambda _, crops: [crops])

    (found,) = ran({"image": image, "boxes": boxes}, build)
    wanted = crop_regions(image, boxes, config)
    assert found.shape == wanted.shape
    difference = np.abs(found.astype(int) - wanted)
    assert difference.max() <= 2
    assert (difference > 0).mean() <= 0.01
