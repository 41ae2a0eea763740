"""The shapes of a net's inputs, as far as its prototxt states them."""

from __future__ import annotations

from collections.abc import Sequence

from detpipe.backbone.caffe.built import Shape
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter


def input_shapes(layer: LayerParameter, given: Sequence[int] | None) -> list[Shape]:
    """A shape for each top of an input layer. `given`, (N, C, H, W), overrides the first one.

    Second tops are labels (N,), unless the layer states all shapes. Raises ValueError if no shape is known.
    """
    stated = _stated(layer, 3)
    if given is not None:
        first = tuple(given)
        rest = stated[1:] if stated else []
        labels = [(first[0], *shape[1:]) for shape in rest] or [(first[0],)] * (len(layer.top) - 1)
        return [first, *labels][: len(layer.top)]
    if stated is None:
        raise ValueError(
            "expected an input size in the prototxt, got none; state it there, or set backbone.input_size=SIDE "
            "(in Python: input_shape=(N, C, H, W))"
        )
    if len(stated) == 1:
        stated *= len(layer.top)
    if len(stated) != len(layer.top):
        raise ValueError(f"expected a shape for each of {len(layer.top)} tops, got {len(stated)}")
    return stated


def _stated(layer: LayerParameter, channels: int) -> list[Shape] | None:
    match layer.type:
        case "Input":
            return [tuple(shape.dim) for shape in layer.input_param.shape] or None
        case "DummyData":
            dummy = layer.dummy_data_param
            sizes = zip(dummy.num, dummy.channels, dummy.height, dummy.width, strict=False)
            return [tuple(shape.dim) for shape in dummy.shape] or list(sizes) or None
        case "MemoryData":
            memory = layer.memory_data_param
            shape = (memory.batch_size, memory.channels, memory.height, memory.width)
            return [shape, (shape[0],)][: len(layer.top)]
        case "Data":
            batch = layer.data_param.batch_size
        case "ImageData":
            batch = layer.image_data_param.batch_size
            channels = 3 if layer.image_data_param.is_color else 1
        case "WindowData":
            batch = layer.window_data_param.batch_size
        case _:
            return None
    side = layer.transform_param.crop_size
    height, width = (side, side)
    if not side and layer.type == "ImageData":
        height, width = layer.image_data_param.new_height, layer.image_data_param.new_width
    if not height or not width:
        return None
    if layer.transform_param.force_gray:
        channels = 1
    return [(batch or 1, channels, height, width), (batch or 1,)][: len(layer.top)]
