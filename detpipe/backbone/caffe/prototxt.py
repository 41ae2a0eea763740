"""Reading and writing .prototxt files: a NetParameter in protobuf's text format."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import text_format

from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter
from detpipe.backbone.caffe.layers import BUILDERS, INPUTS

MAX_TEXT = 2**20
"""Largest prototxt in bytes. That of ResNet-152 has a tenth of it; the parser reads about 1 MB per second."""
MAX_DEPTH = 16
"""Deepest nesting of braces. Caffe's messages have five levels."""

TOKEN = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[{}<>]")


def read_prototxt(path: Path) -> NetParameter:
    """Read the net in a file. Raises FileNotFoundError; ValueError as `parse_prototxt`."""
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
    """Parse a prototxt without upgrading it: V1 layers stay V1 (see `upgrade`). An empty text gives no layers.

    Raises ValueError, beginning with `where`, for a syntax error (with line and column), an unknown layer type (with
    the layer's name), and for a text longer than MAX_TEXT or nested deeper than MAX_DEPTH.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
        raise ValueError(f"{where}: expected a prototxt of at most {MAX_TEXT} bytes, got more")
    _check_depth(text, where)
    net = NetParameter()
    try:
        text_format.Parse(text, net)
    except text_format.ParseError as error:
        _raise_for_unknown_layer(text, where, error)
        raise ValueError(f"{where}: expected a Caffe net, got an error at line:column {error}") from error
    return net


def to_prototxt(net: NetParameter) -> str:
    """The net as text; `parse_prototxt` reads the same net from it."""
    return text_format.MessageToString(net)


def unknown_layer(name: str, kind: str, where: str) -> ValueError:
    """The error for an unknown layer type."""
    return ValueError(
        f"{where}: layer {name!r} has the type {kind!r}, which detpipe doesn't know; "
        "remove it, or build the net in PyTorch"
    )


def _check_depth(text: str, where: str) -> None:
    depth = 0
    for token in TOKEN.finditer(text):
        depth += {"{": 1, "<": 1, "}": -1, ">": -1}.get(token.group(), 0)
        if depth > MAX_DEPTH:
            raise ValueError(f"{where}: expected at most {MAX_DEPTH} nested braces, got more")


def _raise_for_unknown_layer(text: str, where: str, error: Exception) -> None:
    """Layer types of other Caffe versions have unknown settings: name the unknown layer, not its first setting."""
    net = NetParameter()
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
    except text_format.ParseError:
        return
    for layer in net.layer:
        if layer.type not in BUILDERS and layer.type not in INPUTS:
            raise unknown_layer(layer.name, layer.type, where) from error
