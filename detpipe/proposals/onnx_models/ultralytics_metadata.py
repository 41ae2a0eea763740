"""What Ultralytics writes into its ONNX files beside the model: task, names of the classes, size of the input."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 1_000_000
"""Characters of a text that is parsed. The names of 20,000 classes have fewer."""
_TURNED = "obb"
"""The task whose boxes are turned by an angle."""


class TurnedBoxesError(ValueError):
    """The model finds turned boxes."""


@dataclass(frozen=True)
class Stated:
    """What a file says about its model. classes: their number. input_size: (height, width). None if it doesn't say."""

    classes: int | None = None
    input_size: tuple[int, int] | None = None


def stated_by(metadata: Mapping[str, str]) -> Stated:
    """The metadata of an ONNX file as Ultralytics writes it; other files state nothing.

    Raises TurnedBoxesError for a model of turned boxes.
    """
    if metadata.get("author") != "Ultralytics":
        return Stated()
    if metadata.get("task") == _TURNED:
        raise TurnedBoxesError(
            "expected a model of upright boxes, got one of turned boxes (task obb); export a model of the task detect"
        )
    names, size = _literal(metadata.get("names")), _literal(metadata.get("imgsz"))
    is_size = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    return Stated(
        len(names) if isinstance(names, list | dict) and names else None, (size[0], size[1]) if is_size else None
    )


def _literal(text: str | None) -> Any:
    """A value that is written as in Python; None for any other text."""
    if text is None or len(text) > _LONGEST:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
