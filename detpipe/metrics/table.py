"""The table of metrics that `evaluate` computes beside VOC's and COCO's: a new metric is a row here.

See docs/new_metric.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from detpipe.plugins import PluginTable, is_class_path

if TYPE_CHECKING:
    from detpipe.structures import Detections, GroundTruth, ImageId

Metric: TypeAlias = (
    "Callable[[Mapping[ImageId, GroundTruth], Mapping[ImageId, Detections], Sequence[str]], Mapping[str, float]]"
)
"""From the objects of each image, the detections (an image without an entry has none) and the names of the classes to
numbers by name; NaN for a number that does not exist."""

METRICS = PluginTable("metrics", "detpipe.metrics", "", {"best_f1": "detpipe.metrics.operating_point:best_f1_numbers"})
"""From the key in metrics.json to "module:function" of a `Metric`. The rows are always computed, plug-ins only if the
setting `metrics` names them: metrics.json does not depend on what else is installed."""

TAKEN = ("voc07", "voc10", "coco", "seconds", "taxonomy")
"""The other keys of metrics.json."""


def load_metrics(more: Sequence[str | Metric] = ()) -> dict[str, Metric]:
    """The functions of the table's rows and of `more`, by key. Call it before any work.

    more: words of plug-ins, "module:function" names, or functions; the key is the word, or the function's name.
    Raises ValueError for a key that is in use or an unknown word, ImportError or AttributeError for a function that
    does not exist, and as `PluginTable.load`.
    """
    if taken := [key for key in METRICS.rows if key in TAKEN]:
        raise ValueError(f"METRICS: expected other keys than {', '.join(TAKEN)}, got {taken[0]}; rename the row")
    found: dict[str, Metric] = {key: METRICS.load(key) for key in METRICS.rows}
    for one in more:
        if isinstance(one, str) and one not in METRICS:
            words = ", ".join(sorted(set(METRICS) - set(METRICS.rows))) or "none is installed"
            raise ValueError(f"metrics: expected package.module:function or a word of a package ({words}), got {one!r}")
        metric: Metric = METRICS.load(one) if isinstance(one, str) else one
        is_word = isinstance(one, str) and not is_class_path(one)
        key = str(one).partition("@")[0] if is_word else str(getattr(metric, "__name__", ""))
        if key in (*TAKEN, *found) or not key.isidentifier():
            raise ValueError(
                f"metrics: expected functions with other names than {', '.join([*TAKEN, *found])}, got {one}"
            )
        found[key] = metric
    return found


def all_metrics(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    more: Sequence[str | Metric] = (),
) -> dict[str, dict[str, float]]:
    """The numbers of each metric of the table and of `more`, by its key. Raises the errors of `load_metrics`."""
    found: dict[str, dict[str, float]] = {}
    for key, metric in load_metrics(more).items():
        found[key] = {name: float(value) for name, value in metric(ground_truth, detections, classes).items()}
    return found
