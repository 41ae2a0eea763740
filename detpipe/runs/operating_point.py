"""The score threshold of a run's detector: the one with the best F1 in its evaluation, kept with the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detpipe.metrics.operating_point import OperatingPoint
from detpipe.runs.kept_file import keep, kept

FILE = "operating_point.json"
"""The file in the classifier's folder. A new classifier has none until it is evaluated."""
DEFAULT = 0.5
"""The threshold of a detector that was not evaluated."""


@dataclass(frozen=True, kw_only=True)
class KeptOperatingPoint(OperatingPoint):
    """The content of operating_point.json. measured_on: the evaluated data set, with `images` images."""

    measured_on: str
    images: int

    def __post_init__(self) -> None:
        for name in ("score", "precision", "recall"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], got {getattr(self, name)}")


def keep_operating_point(classifier: Path, point: KeptOperatingPoint | None) -> None:
    """Write the operating point into a classifier's folder. None deletes an earlier one; no classifier: nothing."""
    keep(classifier, FILE, KeptOperatingPoint, point)


def kept_operating_point(classifier: Path) -> KeptOperatingPoint | None:
    """The operating point in a classifier's folder; None if the classifier was not evaluated.

    Raises ClassifierError, which names the file and the key, for a damaged file.
    """
    return kept(classifier, FILE, KeptOperatingPoint)


def shown_from(classifier: Path, stated: float | None) -> tuple[float, str]:
    """The minimum score of what is drawn and counted, and why it is this one. stated: the user's own, if any.

    Raises as `kept_operating_point`.
    """
    if stated is not None:
        return stated, "as set by show_floor"
    point = kept_operating_point(classifier)
    if point is None:
        return DEFAULT, "the default; `detpipe eval` finds the best one for this detector"
    return point.score, f"the best F1 on the {point.images} images of {point.measured_on}"
