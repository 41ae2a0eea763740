"""Corrections of labels: the content of corrections.json, which the page of `detpipe labels audit` saves."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, from_json
from detpipe.storage.input_json import read_json
from detpipe.structures import ImageId

REMEDY = "save the corrections again on the page of `detpipe labels audit`, or mend the file (docs/labels.md)"


class Action(enum.Enum):
    """What is done with an object."""

    add = "add"
    remove = "remove"
    change = "change"


class CorrectionError(ValueError):
    """A correction can't be applied to the data set."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """One correction.

    image: the image's id. object: the index of the object among its image's objects, in the order of the annotation
    file, from 0; null for `add`. box: x1 y1 x2 y2 in pixels after the correction. label: the class after it. A null box
    or label of `change` stays as it is; `remove` needs neither. split: of the image; null if the id is unique.
    id: the annotation's id in the data set's own format, as text, if it has one.
    Raises ValueError if a value that the action needs is missing or wrong.
    """

    image: ImageId
    action: Action
    object: int | None = None
    box: tuple[float, float, float, float] | None = None
    label: str | None = None
    split: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if self.action is Action.add:
            if self.box is None or self.label is None:
                raise ValueError("add: expected box and label of the new object, got null")
        elif self.object is None and self.id is None:
            raise ValueError(f"{self.action.value}: expected the index of an object, got null")
        if self.object is not None and self.object < 0:
            raise ValueError(f"object: expected an index of at least 0, got {self.object}")
        if self.action is Action.change and self.box is None and self.label is None:
            raise ValueError("change: expected a box, a label or both, got null")
        if self.box is not None:
            checked_box(self.box)


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """The content of corrections.json.

    dataset: the digest of the labels that were looked at. reviewed: new images that were accepted without objects; a
    file without any lacks the key.
    """

    dataset: str
    corrections: list[Correction]
    reviewed: list[ImageId] = field(default_factory=list)


def checked_box(box: Sequence[float]) -> None:
    """Raise ValueError unless a box has four finite numbers, x1 < x2 and y1 < y2."""
    if len(box) != 4 or not all(map(math.isfinite, box)) or not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"box: expected x1 y1 x2 y2 with x1 < x2 and y1 < y2, got {list(box)}")


def read_corrections(path: Path) -> Corrections:
    """Read corrections.json, which somebody may have edited.

    Raises DataclassJsonError, which names the file and the key, InputFileError for a file that is not JSON, and
    FileNotFoundError.
    """
    content = read_json(path, "corrections.json, as the page of `detpipe labels audit` saves it")
    if not isinstance(content, Mapping):
        raise DataclassJsonError(
            f"{path}: expected an object with dataset and corrections, got {str(content)[:100]}; {REMEDY}"
        )
    try:
        return from_json(content, Corrections, str(path))
    except DataclassJsonError as error:
        raise DataclassJsonError(f"{error}; {REMEDY}") from error


def write_corrections(path: Path, corrections: Corrections) -> None:
    """Write corrections.json atomically."""
    rows = [corrected_row(one) for one in corrections.corrections]
    reviewed = {"reviewed": corrections.reviewed} if corrections.reviewed else {}
    write_json(path, {"dataset": corrections.dataset, "corrections": rows, **reviewed})


def corrected_row(one: Correction) -> dict[str, Any]:
    """The correction as plain values, without values that are null."""
    values = {**asdict(one), "action": one.action.value, "box": None if one.box is None else list(one.box)}
    kept = ("image", "action", "object", "box", "label")
    return {key: value for key, value in values.items() if value is not None or key in kept}
