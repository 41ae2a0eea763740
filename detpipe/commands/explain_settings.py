"""The settings of `detpipe explain`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detpipe.runs.command import Command


@dataclass(kw_only=True)
class Explain(Command):
    """Settings of `detpipe explain`."""

    image: str = ""
    """The test image: its id, the name of its file, or its path."""
    object: int | None = None
    """Number of the one object to explain, from 0, in the order of the annotation. null: all, and false detections."""
    threshold: float | None = None
    """Minimum score of the detections that count. null: the score with the best F1, as in `blame`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.object is not None and self.object < 0:
            raise ValueError(f"object: expected the number of an object, from 0, or null, got {self.object}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold: expected a score or null, got {self.threshold}")
