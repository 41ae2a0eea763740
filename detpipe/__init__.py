"""Two-step object detection: propose regions, then classify them.

This is the public Python API. Names are imported on first use, because importing torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detpipe.datasets import load_dataset
    from detpipe.datasets.supervision_detections import to_supervision
    from detpipe.metrics.evaluate import evaluate
    from detpipe.proposals.selective_search.search import SelectiveSearch
    from detpipe.report.image_detections import ImageDetections, draw
    from detpipe.runs.detector import Detector
    from detpipe.runs.image_classifier import Classifier
    from detpipe.runs.onnx_detector import OnnxDetector
    from detpipe.structures import Dataset, Detections, GroundTruth, ImageRecord, Proposals
    from detpipe.training import TrainingResult, train

__all__ = [
    "Classifier",
    "Dataset",
    "Detections",
    "Detector",
    "GroundTruth",
    "ImageDetections",
    "ImageRecord",
    "OnnxDetector",
    "Proposals",
    "SelectiveSearch",
    "TrainingResult",
    "draw",
    "evaluate",
    "load_dataset",
    "to_supervision",
    "train",
]

_HOMES = {
    "Classifier": "detpipe.runs.image_classifier",
    "Dataset": "detpipe.structures",
    "Detections": "detpipe.structures",
    "Detector": "detpipe.runs.detector",
    "GroundTruth": "detpipe.structures",
    "ImageDetections": "detpipe.report.image_detections",
    "ImageRecord": "detpipe.structures",
    "OnnxDetector": "detpipe.runs.onnx_detector",
    "Proposals": "detpipe.structures",
    "SelectiveSearch": "detpipe.proposals.selective_search.search",
    "TrainingResult": "detpipe.training",
    "draw": "detpipe.report.image_detections",
    "evaluate": "detpipe.metrics.evaluate",
    "load_dataset": "detpipe.datasets",
    "to_supervision": "detpipe.datasets.supervision_detections",
    "train": "detpipe.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'detpipe' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(_HOMES[name]), name)
