"""Scenes with scores that are written by hand, for tests of cues and suspects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detpipe.labels.cues import ScoredImage
from detpipe.labels.regions import AuditRegions, Role
from detpipe.structures import GroundTruth

SIZE = (100, 200)
"""Height and width."""
Row = tuple[Sequence[float], Role, int, Sequence[float]]
"""A region: its box, role, owner, and the scores of two classes."""


def scored(
    truth: GroundTruth,
    rows: Sequence[Row],
    *,
    moved: Sequence[Sequence[float]] | None = None,
    invented: Sequence[int] = (),
    name: str = "one",
) -> ScoredImage:
    """An image with these regions. moved: their boxes after box regression; without it they stay."""
    boxes = np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, 4)
    regions = AuditRegions(
        boxes,
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
        np.arange(len(rows)),
        np.array(invented, dtype=np.int64),
    )
    return ScoredImage(
        image_id=name,
        split="train",
        image_size=SIZE,
        truth=truth,
        regions=regions,
        scores=np.array([row[3] for row in rows], dtype=np.float32).reshape(len(rows), 2),
        moved=boxes if moved is None else np.array(moved, dtype=np.float32),
    )
