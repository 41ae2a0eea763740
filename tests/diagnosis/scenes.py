"""Hand-made images for the tests of this folder: objects, detections and traces in a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detpipe.classify.object_trace import Fate, ObjectTrace
from detpipe.structures import Detections, GroundTruth

CLASSES = ("cat", "dog", "owl")
CAT, DOG, OWL = 1, 2, 3
BOX = (0, 0, 10, 10)
HALF = (0, 0, 10, 20)
"""Its IoU with BOX is 100 / 200, exactly the threshold."""
SHORT = (0, 0, 10, 4)
"""Its IoU with BOX is 40 / 100."""
FAR = (100, 100, 110, 110)


def found(*rows: tuple[float, Sequence[float], int]) -> Detections:
    """Rows (score, box, label), already from high to low."""
    return Detections(
        boxes=np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for score, _, _ in rows], np.float32),
        labels=np.array([label for _, _, label in rows], np.int64),
    )


def objects(
    *rows: tuple[Sequence[float], int], difficult: Sequence[int] = (), crowd: Sequence[int] = ()
) -> GroundTruth:
    """Rows (box, label). difficult, crowd: indices."""
    plain = GroundTruth.from_boxes([box for box, _ in rows], [label for _, label in rows])
    index = np.arange(len(plain))
    return GroundTruth(plain.boxes, plain.labels, np.isin(index, difficult), np.isin(index, crowd), plain.areas)


def traced(
    *,
    proposal_iou: float = 0.8,
    proposal_rank: int = 3,
    iou: float = 0.8,
    rank: int = 3,
    box: tuple[float, float, float, float] = BOX,
    score: float = 0.1,
    scores: Mapping[int, float] | None = None,
    fate: str = "kept",
    by: int = -1,
    best: float = 1.0,
) -> ObjectTrace:
    """What happened to one object: the fields of a trace that the causes rest on."""
    return ObjectTrace(
        proposal_iou=proposal_iou,
        proposal_rank=proposal_rank,
        proposal_scores={},
        iou=iou,
        rank=rank,
        box=box,
        score=score,
        scores=scores or {},
        fate=Fate(fate),
        by=by,
        best=best,
    )
