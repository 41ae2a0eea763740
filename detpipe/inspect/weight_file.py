"""Reading the tensors of any supported weight file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from detpipe.backbone.caffe.caffemodel import Blobs, read_caffemodel
from detpipe.backbone.caffe.load import load_caffe
from detpipe.backbone.caffe.net import blob_tensors
from detpipe.backbone.weights import read_state
from detpipe.storage.caffe_blob import same_shape

CAFFEMODEL = ".caffemodel"


def read_tensors(path: Path, prototxt: str | None = None) -> dict[str, Tensor]:
    """All tensors of a .caffemodel, .pth, .pt (also a snapshot of the solver) or .safetensors file, on the CPU.

    prototxt: the net of a .caffemodel, a file or the name of a preset. With it, tensors have the names and shapes of
    the PyTorch module (layers.conv1.weight). Without it, and for layers that the net does not have, the name is the
    layer's name and the tensor's index (conv1.0). Other files have their own names. The tensors of a .safetensors file,
    which has no order, are sorted by name, with numbers in names in numeric order.

    Raises FileNotFoundError; ValueError for a file that can't be read, has no tensors or does not fit the net, and for
    tensors that are sparse, quantised, complex, or larger than the data in the file.
    """
    if path.suffix == CAFFEMODEL:
        blobs = read_caffemodel(path)
        return _numbered(blobs) if prototxt is None else _named(blobs, prototxt, path)
    tensors = read_state(path)
    if not tensors:
        raise ValueError(f"{path}: expected weights, got a file without tensors")
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise ValueError(f"{path}: {name}: expected a tensor of real numbers, got {tensor.dtype}")
    return dict(sorted(tensors.items(), key=_natural)) if path.suffix == ".safetensors" else tensors


def _numbered(blobs: Blobs) -> dict[str, Tensor]:
    return {
        f"{layer}.{i}": torch.tensor(blob.array) for layer, several in blobs.items() for i, blob in enumerate(several)
    }


def _named(blobs: Blobs, prototxt: str, path: Path) -> dict[str, Tensor]:
    net = load_caffe(prototxt)
    tensors: dict[str, Tensor] = {}
    rest = dict(blobs)
    for step in net.steps:
        own, theirs = blob_tensors(net.layers[step.module]), rest.pop(step.layer.name, ())
        if not theirs:
            continue
        shapes, wanted = [blob.shape for blob in theirs], [tuple(tensor.shape) for tensor in own.values()]
        if len(shapes) != len(wanted) or not all(map(same_shape, shapes, wanted)):
            raise ValueError(
                f"{path}: layer {step.layer.name!r}: expected blobs of shapes {wanted} as in {prototxt}, got {shapes}; "
                "give the file's own prototxt, or none"
            )
        for attribute, shape, blob in zip(own, wanted, theirs, strict=True):
            tensors[f"layers.{step.module}.{attribute}"] = torch.tensor(blob.values).reshape(shape)
    return {**tensors, **_numbered(rest)}


def _natural(item: tuple[str, Tensor]) -> list[tuple[bool, int, str]]:
    """Sort key that puts blocks.2 before blocks.10."""
    parts = re.split(r"(\d+)", item[0])
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
