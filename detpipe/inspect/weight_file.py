"""The tensors of a file of weights by name, whatever kind of file it is."""

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
    """Every tensor of a .caffemodel, .pth, .pt (also a snapshot of the solver) or .safetensors file, on the CPU.

    prototxt: the net of a .caffemodel, a file or a preset. Its tensors then have the names and shapes that the module
    of that net has (layers.conv1.weight); without, and in layers that the net has not, that of the layer and their
    number there (conv1.0). Of other files the names are their own; a .safetensors, which has no order, is sorted,
    numbers by their value.

    Raises FileNotFoundError; ValueError for a file that can't be read, that holds no tensors, that doesn't fit the
    net, or whose tensors are not plain (sparse, quantised, complex, or claiming more numbers than the file holds).
    """
    if path.suffix == CAFFEMODEL:
        blobs = read_caffemodel(path)
        return _numbered(blobs) if prototxt is None else _named(blobs, prototxt, path)
    tensors = read_state(path)
    if not tensors:
        raise ValueError(f"{path}: expected weights, got a file without any")
    for name, tensor in tensors.items():
        _check_plain(name, tensor, path)
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
                f"{path}: layer {step.layer.name!r}: expected blobs of {wanted} as {prototxt} says, got "
                f"{shapes}; give "
                "the file's own prototxt, or none"
            )
        for attribute, shape, blob in zip(own, wanted, theirs, strict=True):
            tensors[f"layers.{step.module}.{attribute}"] = torch.tensor(blob.values).reshape(shape)
    return {**tensors, **_numbered(rest)}


def _check_plain(name: str, tensor: Tensor, path: Path) -> None:
    """A small file may claim a tensor without end: by steps of 0, by no data, as sparse."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise ValueError(f"{path}: {name}: expected a dense tensor of real numbers, got {tensor.layout} {tensor.dtype}")
    held = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > held:
        raise ValueError(f"{path}: {name}: it claims {tensor.numel()} numbers, {tuple(tensor.shape)}, and holds {held}")


def _natural(item: tuple[str, Tensor]) -> list[tuple[bool, int, str]]:
    """blocks.2 before blocks.10."""
    parts = re.split(r"(\d+)", item[0])
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
