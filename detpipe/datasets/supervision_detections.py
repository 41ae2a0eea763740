"""Converts detections for the library `supervision`, for its annotators, trackers and zones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detpipe.structures import Detections

if TYPE_CHECKING:
    import supervision


def to_supervision(detections: Detections, classes: Sequence[str]) -> supervision.Detections:
    """Convert to `supervision.Detections`: boxes (N, 4), scores and classes in the same order.

    classes: names in label order, as `Detector.spec.classes`. supervision counts classes from 0: class_id is label - 1,
    and data["class_name"] has the names. No detections give an empty object. Raises ImportError if supervision is not
    installed, ValueError for a label without a class name.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision: supervision is not installed; pip install supervision") from error
    if len(detections) and not 1 <= detections.labels.min() <= detections.labels.max() <= len(classes):
        raise ValueError(f"to_supervision: expected labels 1..{len(classes)}, got {int(detections.labels.max())}")
    class_ids = detections.labels - 1
    return supervision.Detections(
        xyxy=detections.boxes,
        confidence=detections.scores,
        class_id=class_ids,
        data={"class_name": np.asarray(classes, dtype=str)[class_ids]},
    )
