"""A net of one layer, from its text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detpipe.backbone.caffe.load import build_net
from detpipe.backbone.caffe.net import Net
from detpipe.backbone.caffe.prototxt import parse_prototxt


def make(layer: str, *shapes: Sequence[int], train: bool = False, seed: int = 0) -> Net:
    """The net whose inputs a, b, ... have those shapes, and whose one layer, `one`, has the given settings."""
    names = "abcdefgh"[: len(shapes)]
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims(shape)} }} }} }}\n'
        for name, shape in zip(names, shapes, strict=True)
    )
    bottoms = "".join(f'bottom: "{name}" ' for name in names)
    top = "" if "top:" in layer else 'top: "y"'
    text = f'{inputs}layer {{ name: "one" {bottoms} {top} {layer} }}'
    return build_net(parse_prototxt(text), train=train, generator=torch.Generator().manual_seed(seed))


def dims(shape: Sequence[int]) -> str:
    return " ".join(f"dim: {size}" for size in shape)


def run(layer: str, *inputs: torch.Tensor, train: bool = False) -> torch.Tensor:
    """The layer's one output for these inputs."""
    net = make(layer, *(x.shape for x in inputs), train=train)
    return net(*inputs)["y"]


def set_blobs(net: Net, *values: object) -> None:
    """Give the layer these parameters, in Caffe's order."""
    from detpipe.backbone.caffe.net import blob_tensors

    with torch.no_grad():
        for tensor, value in zip(blob_tensors(net.layers["one"]).values(), values, strict=True):
            tensor.copy_(torch.as_tensor(value).view(tensor.shape))
