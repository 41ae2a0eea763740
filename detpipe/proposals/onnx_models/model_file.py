"""The files of an ONNX model: the model itself, and the files of external data that it names.

onnxruntime opens the external files while it loads the model. They are found first, from the protobuf messages alone,
so that none is read outside the model's folder. The numbers of the fields come from onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detpipe.storage.input_file import check_input, read_input
from detpipe.storage.wire import LENGTH, read_fields

EXPECTED = "an ONNX model"
_LARGEST = 2**31 - 1
"""Bytes of a protobuf message. A larger model has its weights in files of their own."""
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_EXTERNAL_DATA = 13
_KEY, _VALUE = 1, 2
_INNER: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "graph", _MODEL_FUNCTION: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message -> the fields that lead to a tensor, and the messages in them."""
_DEEPEST = 64
"""Messages in each other. An ordinary model has 4, and 4 more for each loop in a loop."""


class OnnxModelError(ValueError):
    """A file that is not an ONNX model, or a model that can't be used as its settings say."""


def model_files(path: Path) -> list[Path]:
    """The model, then its files of external data, each once.

    Raises OnnxModelError for a truncated or other file, for external data outside the model's folder, and the errors of
    `read_input` for each file.
    """
    content = memoryview(read_input(path, EXPECTED, _LARGEST))
    try:
        if not any(field.number == _MODEL_GRAPH for field in read_fields(content, "its model")):
            raise ValueError("it has no graph")
        locations = dict.fromkeys(_locations(content, "model", 0))
    except ValueError as error:
        raise OnnxModelError(
            f"{path}: expected {EXPECTED}, got a truncated file or one of another format ({error}); copy it again"
        ) from error
    folder, files = path.parent.resolve(), [path]
    for location in locations:
        file = path.parent / location
        if Path(location).is_absolute() or not file.resolve().is_relative_to(folder):
            raise OnnxModelError(
                f"{path}: expected external data in the model's folder, got {location!r:.100}; put its files "
                "beside the model and save it again"
            )
        check_input(file, f"the external data of {path.name}")
        files.append(file)
    return files


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    """The names of files of external data in a message."""
    if depth > _DEEPEST:
        raise ValueError(f"messages in each other {depth} times")
    for field in read_fields(message, f"its {kind}"):
        if field.wire_type != LENGTH:
            continue
        if kind == "tensor" and field.number == _EXTERNAL_DATA:
            entry = {one.number: bytes(one.value) for one in read_fields(field.value, "its external data")}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode("utf-8", "replace")
        elif field.number in _INNER.get(kind, {}):
            yield from _locations(field.value, _INNER[kind][field.number], depth + 1)
