"""The settings of `detpipe blame`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detpipe.diagnosis.settings import SecondOpinion
from detpipe.runs.command import Command


@dataclass(kw_only=True)
class Blame(Command):
    """Settings of `detpipe blame`."""

    detections: str | None = None
    """A COCO result file of any detector, for the types of TIDE. null: the run folder's detections."""
    against: str | None = None
    """Another run folder, with detections of the same images, to compare with."""
    threshold: float | None = None
    """Minimum score of the detections that count. null: the score with the best F1."""
    second_opinion: SecondOpinion = SecondOpinion.auto
    """Whether a second classifier looks for objects without a label: auto, on stored features if the run has them, else
    on features that are computed, within about a minute; stored, only on stored ones; none."""
    classify_objects: bool = True
    """Also classify the objects' own boxes, for the mAP with perfect proposals. It takes about as long as detecting.
    false: this number is null."""
    resamples: int = 1000
    """Number of bootstrap resamples of the images for the intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold: expected a score or null, got {self.threshold}")
        if self.resamples < 0:
            raise ValueError(f"resamples: expected 0 (no intervals) or more, got {self.resamples}")
