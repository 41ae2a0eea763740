"""Settings of a diagnosis. This file does not need torch."""

from __future__ import annotations

import enum


class SecondOpinion(enum.Enum):
    """Which features the second classifier has, that looks for objects without a label."""

    auto = "auto"
    """Stored ones, if the run has them; else they are computed for a sample of the training images."""
    stored = "stored"
    """Stored ones only."""
    none = "none"
    """There is no second classifier."""
