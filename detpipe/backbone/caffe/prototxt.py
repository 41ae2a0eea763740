"""Reading and writing .prototxt files: a NetParameter in protobuf's text format."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from google.protobuf import text_format

from detpipe.backbone.caffe.caffe_net_pb2 import DESCRIPTOR, NetParameter
from detpipe.backbone.caffe.layers import BUILDERS, INPUTS
from detpipe.storage.input_file import open_input

MAX_TEXT = 2**20
"""Largest prototxt in bytes. That of ResNet-152 has a tenth of it; the parser reads about 1 MB per second."""
MAX_DEPTH = 16
"""Deepest nesting of braces. Caffe's messages have five levels."""
MAX_BRACES = 40_000
"""Largest number of messages in braces: ten for each layer of the largest net."""
MAX_NAME = 1000
"""Longest name, or other text in quotes, in characters."""

TOKEN = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?|[{}<>]")
"""A comment, a text or a brace. A text without an end is the rest of its line; else each quote in it would be tried."""
OF_SOLVERS = ("net", "train_net", "test_net", "test_iter", "test_interval", "base_lr", "max_iter", "lr_policy")
"""Fields with which a solver.prototxt begins."""
UNKNOWN_FIELD = re.compile(r'Message type "detpipe\.caffe\.(\w+)" has no field named "([^"]*)"')


def read_prototxt(path: Path) -> NetParameter:
    """Read the net in a file. Raises FileNotFoundError; ValueError as `open_input` and `parse_prototxt`."""
    if not path.exists():
        raise FileNotFoundError(f"no such prototxt: {path}")
    with open_input(path, "a prototxt") as file:
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
    the layer's name), and for a text longer than MAX_TEXT, nested deeper than MAX_DEPTH, with a name longer than
    MAX_NAME, or with more braces than MAX_BRACES.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
        raise ValueError(f"{where}: expected a prototxt of at most {MAX_TEXT} bytes, got more")
    _check_size(text, where)
    net = NetParameter()
    try:
        text_format.Parse(text, net)
    except text_format.ParseError as error:
        _raise_for_unknown_layer(text, where, error)
        raise ValueError(f"{where}: {_explained(error)}") from error
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


def _explained(error: text_format.ParseError) -> str:
    """protobuf's error with its place, and a suggestion for an unknown field."""
    place = f"line {error.GetLine()}, column {error.GetColumn()}: " if error.GetLine() else ""
    unknown = UNKNOWN_FIELD.search(str(error))
    if unknown is None:
        text = re.sub(r"^\d+:\d+ : ", "", str(error)).strip()
        return f"{place}expected a Caffe net: {text[:200]}"
    message, name = unknown[1], unknown[2][:60]
    if message == "NetParameter" and name in OF_SOLVERS:
        return f"{place}expected a Caffe net, got a solver.prototxt; give the net's file, which its field `net` names"
    fields = DESCRIPTOR.message_types_by_name[message].fields_by_name
    near = difflib.get_close_matches(name, fields, n=1)
    hint = f"did you mean {near[0]}?" if near else "remove it if it does not change the net's results"
    return f"{place}expected a field of Caffe's {message}, got {name}; {hint}"


def _check_size(text: str, where: str) -> None:
    """Check the number and nesting of braces and the lengths of texts, before anything is made from them."""
    depth = length = end = messages = 0
    for token in TOKEN.finditer(text):
        first = token[0][0]
        depth += {"{": 1, "<": 1, "}": -1, ">": -1}.get(first, 0)
        messages += first in "{<"
        if messages > MAX_BRACES:
            raise ValueError(f"{where}: expected at most {MAX_BRACES} pairs of braces, got more")
        if depth > MAX_DEPTH:
            raise ValueError(f"{where}: expected at most {MAX_DEPTH} nested braces, got more")
        if first in "\"'":
            # Texts with nothing between them are one text.
            length = len(token[0]) + (0 if text[end : token.start()].strip() else length)
            if length > MAX_NAME:
                raise ValueError(
                    f"{where}: expected names of at most {MAX_NAME} characters, got a longer one that begins with "
                    f"{token[0][:40]}"
                )
            end = token.end()


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
