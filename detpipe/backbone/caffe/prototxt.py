"""Nets as text: .prototxt, protobuf's text format of a NetParameter."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import text_format

from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter
from detpipe.backbone.caffe.layers import BUILDERS, INPUTS

MAX_TEXT = 2**20
"""Bytes of a text. ResNet-152's has a tenth; the parser makes about a megabyte a second of it."""
MAX_DEPTH = 16
"""Braces within braces. Caffe's own messages go five deep."""

TOKEN = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[{}<>]")


def read_prototxt(path: Path) -> NetParameter:
    """The net in a file. Raises FileNotFoundError; ValueError as `parse_prototxt` does."""
    if not path.is_file():
        raise FileNotFoundError(f"no such prototxt: {path}")
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(content) <= MAX_TEXT:
            raise ValueError(f"{path}: expected a prototxt in UTF-8, got other bytes at {error.start}") from error
        text = content.decode("utf-8", "replace")
    return parse_prototxt(text, str(path))


def parse_prototxt(text: str, where: str = "prototxt") -> NetParameter:
    """The net that a text describes, as it stands there: V1 layers stay V1 (see `upgrade`). No text, no layers.

    Raises ValueError, beginning with `where`: line and column of what can't be read; the name and type of a layer
    that we don't know; a text longer than MAX_TEXT or deeper than MAX_DEPTH.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
        raise ValueError(f"{where}: expected a prototxt of at most {MAX_TEXT} bytes, got more")
    _check_depth(text, where)
    net = NetParameter()
    try:
        text_format.Parse(text, net)
    except text_format.ParseError as error:
        _raise_for_unknown_layer(text, where, error)
        raise ValueError(f"{where}: expected a net of Caffe, line:column {error}") from error
    return net


def to_prototxt(net: NetParameter) -> str:
    """The text of a net, which `parse_prototxt` reads back as the same."""
    return text_format.MessageToString(net)


def unknown_layer(name: str, kind: str, where: str) -> ValueError:
    """The error for a layer of a type that we don't know."""
    return ValueError(
        f"{where}: layer {name!r} has the type {kind!r}, which detpipe doesn't know; "
        "leave it out, or build the net in PyTorch"
    )


def _check_depth(text: str, where: str) -> None:
    depth = 0
    for token in TOKEN.finditer(text):
        depth += {"{": 1, "<": 1, "}": -1, ">": -1}.get(token.group(), 0)
        if depth > MAX_DEPTH:
            raise ValueError(f"{where}: expected braces at most {MAX_DEPTH} deep, got more")


def _raise_for_unknown_layer(text: str, where: str, error: Exception) -> None:
    """A layer type of another Caffe has settings that ours hasn't: name the layer rather than its first setting."""
    net = NetParameter()
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
    except text_format.ParseError:
        return
    for layer in net.layer:
        if layer.type not in BUILDERS and layer.type not in INPUTS:
            raise unknown_layer(layer.name, layer.type, where) from error
