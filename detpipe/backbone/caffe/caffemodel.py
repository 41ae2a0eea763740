"""Reading and writing .caffemodel files: a NetParameter whose layers contain blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter
from detpipe.storage.atomic import replaced
from detpipe.storage.caffe_blob import Blob, read_blob, write_blob
from detpipe.storage.input_file import read_input
from detpipe.storage.wire import LENGTH, Field, read_fields, write_length

V1_LAYERS, V2_LAYERS = 2, 100
V1_BLOBS, V2_BLOBS = 6, 7
V1_NAME, V2_NAME = 4, 1
V0_LAYER = 1
MAX_FILE = 2**31 - 1
"""Largest file in bytes: the limit of protobuf and Caffe."""
MAX_NAME = 1000
"""Longest layer name in bytes; the rest is ignored."""
MAX_LAYER_FIELDS = 100_000
"""Largest number of protobuf fields in all layers, including blobs. A net with 4000 layers has fewer."""
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

Blobs = dict[str, tuple[Blob, ...]]


def read_caffemodel(path: Path) -> Blobs:
    """Read the blobs of a file (V1 or V2 format) by layer name, in the order of the file; layers without are omitted.

    The blobs are views of the file's bytes, so little other memory is used. If a name occurs twice, the last layer
    counts, as in Caffe. Raises FileNotFoundError; ValueError for another, a truncated or an invalid file.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such weight file: {path}")
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"{path}: expected a .caffemodel of at most {MAX_FILE} bytes, got {path.stat().st_size}")
    return parse_caffemodel(read_input(path, "a .caffemodel"), str(path))


def parse_caffemodel(content: bytes, where: str) -> Blobs:
    """As `read_caffemodel`, from bytes. Errors begin with `where`."""
    if content.startswith(HDF5_SIGNATURE):
        raise ValueError(
            f"{where}: expected a .caffemodel in protobuf format, got HDF5; save it with BINARYPROTO in Caffe"
        )
    blobs: Blobs = {}
    count = 0
    for field in read_fields(memoryview(content), where):
        if field.number in (V1_LAYERS, V2_LAYERS) and field.wire_type == LENGTH:
            fields = list(read_fields(field.value, where))
            count += len(fields)
            if count > MAX_LAYER_FIELDS:
                raise ValueError(f"{where}: expected at most {MAX_LAYER_FIELDS} fields in all layers, got more")
            name, own = _read_layer(fields, field.number == V1_LAYERS, where)
            if own:
                blobs[name] = own
    if not blobs:
        raise ValueError(f"{where}: expected a .caffemodel with weights, got {len(content)} bytes without")
    return blobs


def write_caffemodel(path: Path, net: NetParameter, blobs: Mapping[str, Sequence[npt.NDArray[np.float32]]]) -> None:
    """Write the layers of `net` with their float32 blobs atomically to a file that Caffe can read.

    blobs: by layer name. Raises ValueError if the file would be larger than Caffe's limit.
    """
    head = NetParameter()
    head.CopyFrom(net)
    head.ClearField("layer")
    size = 0
    with replaced(path) as scratch, scratch.open("wb") as file:
        size += file.write(head.SerializeToString())
        for layer in net.layer:
            own = b"".join(write_length(V2_BLOBS, write_blob(array)) for array in blobs.get(layer.name, ()))
            size += file.write(write_length(V2_LAYERS, layer.SerializeToString() + own))
            if size > MAX_FILE:
                raise ValueError(f"{path}: expected at most {MAX_FILE} bytes, which Caffe can read, got more")


def _read_layer(fields: Sequence[Field], is_v1: bool, where: str) -> tuple[str, tuple[Blob, ...]]:
    """Name and blobs of a layer. Other fields are ignored."""
    name, blobs = b"", []
    name_number, blobs_number = (V1_NAME, V1_BLOBS) if is_v1 else (V2_NAME, V2_BLOBS)
    for field in fields:
        if is_v1 and field.number == V0_LAYER:
            raise ValueError(
                f"{where}: expected Caffe's V1 or newer format, got V0 (2013); convert it with upgrade_net_proto_binary"
            )
        if field.number == blobs_number and field.wire_type == LENGTH:
            blobs.append(field.value)
        elif field.number == name_number and field.wire_type == LENGTH:
            name = bytes(field.value[:MAX_NAME])
    text = name.decode("utf-8", "backslashreplace")
    return text, tuple(read_blob(blob, f"{where}: {text[:100]!r}, blob {i}") for i, blob in enumerate(blobs))
