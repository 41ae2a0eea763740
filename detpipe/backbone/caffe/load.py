"""Loading a net from Caffe's files, and saving its weights."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter
from detpipe.backbone.caffe.caffemodel import Blobs, read_caffemodel, write_caffemodel
from detpipe.backbone.caffe.net import Net, blob_tensors
from detpipe.backbone.caffe.net_state import select_layers
from detpipe.backbone.caffe.presets import find_prototxt
from detpipe.backbone.caffe.prototxt import read_prototxt
from detpipe.backbone.caffe.upgrade import upgrade
from detpipe.storage.caffe_blob import same_shape

logger = logging.getLogger(__name__)


def load_caffe(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    *,
    train: bool = False,
    level: int = 0,
    stages: Collection[str] = (),
    input_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Net:
    """Load a net from a prototxt and, optionally, its weights. `net(x)` returns its outputs by blob name.

    prototxt: a file or a preset's name (see `presets`). train: phase TRAIN, in training mode; else phase TEST, in
    evaluation mode. level, stages: the rest of Caffe's net state. input_shape: (N, C, H, W) of the first input, if the
    prototxt does not state it or for another size; N may differ later. generator: for the fillers of layers without
    weights; None: one with seed 0.

    Layers that the weight file lacks keep the values of their fillers. They are logged, and so are layers that only the
    file has. Raises FileNotFoundError; ValueError, naming file and layer, for unreadable files, unknown layer types,
    inconsistent settings, and weights of another shape.
    """
    path = find_prototxt(prototxt)
    return build_net(
        read_prototxt(path),
        caffemodel,
        train=train,
        level=level,
        stages=stages,
        input_shape=input_shape,
        generator=generator,
        where=str(path),
    )


def build_net(
    definition: NetParameter,
    caffemodel: str | Path | None = None,
    *,
    train: bool = False,
    level: int = 0,
    stages: Collection[str] = (),
    input_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    where: str = "net",
) -> Net:
    """As `load_caffe`, from a definition in memory such as `NetSpec.definition`. The definition is not changed."""
    selected = select_layers(upgrade(definition, where), train=train, level=level, stages=stages)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    net = Net(selected, input_shape, generator, where)
    if caffemodel is not None:
        load_blobs(net, read_caffemodel(Path(caffemodel)), str(caffemodel))
    return net.train(train)


def load_blobs(net: Net, blobs: Blobs, where: str, *, log: bool = True) -> list[str]:
    """Copy blobs into the layers of the same name. Returns the names of layers that the file does not have.

    log: log the layers that only one side has. Raises ValueError, beginning with `where`, if a layer's blobs differ in
    number or shape, or if no layer matches.
    """
    missing, loaded = [], set()
    for step in net.steps:
        own = list(blob_tensors(net.layers[step.module]).values())
        if not own:
            continue
        name = step.layer.name
        if name not in blobs:
            missing.append(name)
            continue
        theirs = blobs[name]
        if len(own) != len(theirs) or not all(
            same_shape(tuple(a.shape), b.shape) for a, b in zip(own, theirs, strict=True)
        ):
            raise ValueError(
                f"{where}: layer {name!r}: expected blobs of {[tuple(a.shape) for a in own]}, got "
                f"{[b.shape for b in theirs]}; rename the layer to train it from scratch, or give the input size of "
                "the file (crops.size of a detector, else backbone.input_size)"
            )
        with torch.no_grad():
            for tensor, blob in zip(own, theirs, strict=True):
                tensor.copy_(torch.tensor(blob.values).view(tensor.shape))
        loaded.add(name)
    if not loaded:
        raise ValueError(f"{where}: expected weights of layers {missing[:4]}, got {list(blobs)[:4]}")
    if missing and log:
        logger.warning("%s: layers missing in the file, initialised by fillers: %s", where, ", ".join(missing))
    if log and (unused := [name for name in blobs if name not in loaded]):
        logger.warning("%s: layers not in the net, ignored: %s", where, ", ".join(unused))
    return missing


def save_caffemodel(net: Net, path: str | Path) -> None:
    """Write the net's layers with their weights atomically. Caffe and `load_caffe` can read the file."""
    write_caffemodel(Path(path), net.definition, net.layer_blobs())
