"""The table of metrics that `evaluate` computes beside VOC's and COCO's: a new metric is a row here.

See docs/new_metric.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from detpipe.class_path import load_object
from detpipe.structures import Detections, GroundTruth, ImageId

Metric = Callable[
    [Mapping[ImageId, GroundTruth], Mapping[ImageId, Detections], Sequence[str]],
    Mapping[str, float],
]
"""From the objects of each image, the detections (an image without an entry has none) and the names of the classes to
numbers by name; NaN for a number that does not exist."""

METRICS: dict[str, str] = {
    "best_f1": "detpipe.metrics.operating_point:best_f1_numbers",
}
"""From the key in metrics.json to "module:function" of a `Metric`."""

TAKEN = ("voc07", "voc10", "coco", "seconds")
"""The other keys of metrics.json."""


def load_metrics() -> dict[str, Metric]:
    """The functions of the table, by key. Call it before any work.

    Raises ValueError for a key of metrics.json's own, ImportError or AttributeError for a function that does not exist.
    """
    if taken := [key for key in METRICS if key in TAKEN]:
        raise ValueError(f"METRICS: expected other keys than {', '.join(TAKEN)}, got {taken[0]}; rename the row")
    return {key: load_object(path) for key, path in METRICS.items()}


def all_metrics(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
) -> dict[str, dict[str, float]]:
    """The numbers of each metric of the table, by its key. Raises the errors of `load_metrics`."""
    found: dict[str, dict[str, float]] = {}
    for key, metric in load_metrics().items():
        found[key] = {name: float(value) for name, value in metric(ground_truth, detections, classes).items()}
    return found
