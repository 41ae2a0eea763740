"""Labels that may be wrong, and images to label next: the content of audit.json and next.json."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detpipe.labels.corrections import Action, checked_box
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import read_dataclass
from detpipe.structures import ImageId


class SuspectKind(enum.Enum):
    """What may be wrong with a label."""

    missing = "missing"
    """An object without a label."""
    wrong_class = "wrong_class"
    """The label of an object has another class."""
    misplaced = "misplaced"
    """The label's box is not where the object is."""
    spurious = "spurious"
    """There is no object in the label's box."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What the model would do: the action, and the label and box after it. They are null for `remove`."""

    action: Action
    label: str | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One label that may be wrong, or one object that may lack a label.

    image: the image's id. split: train, val or test. kind, and score: the probability in [0, 1] that the label is wrong
    in this way. object: the index of the label among the objects of its image, in the order of the annotation file;
    null for `missing`. box: x1 y1 x2 y2 in pixels, of the label, or the proposed box for `missing`. label: its class,
    or the proposed class for `missing`. why: one sentence.
    Raises ValueError for a score outside [0, 1] and for an empty box.
    """

    image: ImageId
    split: str
    kind: SuspectKind
    score: float
    object: int | None
    box: tuple[float, float, float, float]
    label: str
    suggestion: Suggestion
    why: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ValueError(f"score: expected a number from 0 to 1, got {self.score}")
        checked_box(self.box)


@dataclass(frozen=True, kw_only=True)
class AuditFile:
    """The content of audit.json. dataset: digest of the labels. suspects: the most probable first."""

    dataset: str
    suspects: list[Suspect]


def write_audit(path: Path, dataset: str, suspects: Sequence[Suspect]) -> None:
    """Write audit.json atomically. dataset: the digest of the labels. suspects: the most probable first."""
    write_json(path, {"dataset": dataset, "suspects": [to_json(one) for one in suspects]})


def read_audit(path: Path) -> AuditFile:
    """Read audit.json. Raises DataclassJsonError, which names file and key, and FileNotFoundError."""
    return read_dataclass(path, AuditFile, "run `detpipe labels audit` again")


def to_json(suspect: Suspect) -> dict[str, Any]:
    """The suspect as plain values."""
    return {
        **asdict(suspect),
        "kind": suspect.kind.value,
        "box": list(suspect.box),
        "suggestion": {
            "action": suspect.suggestion.action.value,
            "label": suspect.suggestion.label,
            "box": None if suspect.suggestion.box is None else list(suspect.suggestion.box),
        },
    }
