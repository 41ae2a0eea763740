"""All metrics of one data set's detections, as JSON and as a table."""

from __future__ import annotations

import html
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detpipe.metrics.coco_ap import CocoResult, check_evaluator, coco_ap
from detpipe.metrics.table import Metric, all_metrics, load_metrics
from detpipe.metrics.voc_ap import VocMethod, VocResult, precision_recall, summarize
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId

log = logging.getLogger(__name__)

MEAN = "mean of the classes"
"""The name of the last row of the table."""


@dataclass(frozen=True, eq=False, repr=False)
class Metrics:
    """What `evaluate` found. `print` shows it as a table, and so does a notebook.

    voc07, voc10: at IoU 0.5. coco: the twelve numbers. others: of each metric in the table METRICS, by its key, numbers
    by name.
    """

    voc07: VocResult
    voc10: VocResult
    coco: CocoResult
    others: Mapping[str, Mapping[str, float]]

    def to_json(self, seconds: Mapping[str, float]) -> dict[str, Any]:
        """The content of metrics.json; a number that doesn't exist (NaN) is None. seconds: of each stage."""
        return {
            "voc07": {"map": _or_none(self.voc07.map), "per_class": _all_or_none(self.voc07.per_class)},
            "voc10": {"map": _or_none(self.voc10.map), "per_class": _all_or_none(self.voc10.per_class)},
            "coco": _all_or_none(self.coco.numbers),
            **{key: _all_or_none(numbers) for key, numbers in self.others.items()},
            "seconds": dict(seconds),
        }

    def __repr__(self) -> str:
        return f"Metrics(VOC10 mAP@0.5 {self.voc10.map:.3f}, COCO AP {self.coco.ap:.3f})"

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        """The table of the classes and the lines below it, for a notebook."""
        rows = [
            _html_row("td", [name, objects, *map(_text, self._of_class(name))])
            for name, objects in self.voc10.objects.items()
        ]
        means = [MEAN, sum(self.voc10.objects.values()), *map(_text, self._means())]
        head = _html_row("th", ["class", "objects", "VOC07", "VOC10", "COCO"])
        table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}{_html_row('th', means)}</tbody></table>"
        return f"{table}<pre>{html.escape(chr(10).join(self._other_lines()))}</pre>"

    def _of_class(self, name: str) -> tuple[float, float, float]:
        return self.voc07.per_class[name], self.voc10.per_class[name], self.coco.per_class[name]

    def _means(self) -> tuple[float, float, float]:
        return self.voc07.map, self.voc10.map, self.coco.ap

    def to_text(self) -> str:
        """A table for the terminal: a line a class, their mean, COCO's numbers, other metrics; "-" is not a number."""
        names = [*self.voc10.per_class, MEAN]
        width = max(map(len, names))
        head = f"{'class':<{width}}  {'objects':>7}  {'VOC07':>6}  {'VOC10':>6}  {'COCO':>6}"
        rule = "-" * len(head)
        lines = [head, rule]
        for name, objects in self.voc10.objects.items():
            lines.append(_row(f"{name:<{width}}", objects, self._of_class(name)))
        lines += [rule, _row(f"{MEAN:<{width}}", sum(self.voc10.objects.values()), self._means()), ""]
        return "\n".join([*lines, *self._other_lines()])

    def _other_lines(self) -> list[str]:
        """The lines below the table: COCO's numbers and other metrics."""
        numbers = [f"{name:<5} {_text(value)}" for name, value in self.coco.numbers.items()]
        lines = ["COCO  " + "   ".join(numbers[:6]), "      " + "   ".join(numbers[6:])]
        for key, measured in self.others.items():
            lines.append(f"{key}  " + "   ".join(f"{name} {_text(value).strip()}" for name, value in measured.items()))
        return [line.rstrip() for line in lines]


def check_metrics(more: Sequence[str] = ()) -> None:
    """Raise the errors of `evaluate` about packages and the table of metrics, before the work that it measures."""
    load_metrics(more)
    check_evaluator()


def evaluate(
    dataset: Dataset,
    detections: Mapping[ImageId, Detections],
    *,
    max_dets: int = 100,
    metrics: Sequence[str | Metric] = (),
) -> Metrics:
    """VOC 2007, VOC 2010 and COCO metrics of detections on the images of a data set, and all of the table METRICS.

    Objects are compared as their files have them, also beyond the border of the image (`Dataset.measured_truth`).
    detections: by image id; an image without an entry has none. max_dets: the most that the detector kept of an image,
    or that a result file may hold; images that reach it are counted in a warning, because more detections might raise
    the AP. metrics: further ones, as functions or by their words (docs/plugins.md). Detections of images that the data
    set doesn't have are left out with a warning that counts and names them.
    Raises TypeError for an argument of another type. Raises ValueError where the data set has no annotations, where no
    detection is of any of its images, for labels beyond 1..K and for max_dets below 1.
    """
    ground_truth = _checked_truth(dataset)
    _check_arguments(detections, max_dets)
    known = _known(dataset, ground_truth, detections)
    _warn_of_full_images(known, max_dets)
    times = [time.perf_counter()]
    curves = precision_recall(ground_truth, known, dataset.classes)
    voc07, voc10 = summarize(curves, VocMethod.VOC07), summarize(curves, VocMethod.VOC10)
    times.append(time.perf_counter())
    coco = coco_ap(ground_truth, known, dataset.classes)
    times.append(time.perf_counter())
    others = all_metrics(ground_truth, known, dataset.classes, metrics)
    times.append(time.perf_counter())
    log.debug("metrics: VOC in %.2f s, COCO in %.2f s, others in %.2f s", *np.diff(times).tolist())
    return Metrics(voc07=voc07, voc10=voc10, coco=coco, others=others)


def _checked_truth(dataset: Dataset) -> dict[ImageId, GroundTruth]:
    """The objects to evaluate against. Raises TypeError, and ValueError for a data set without annotations."""
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset: expected a Dataset, got {type(dataset).__name__}; make one with load_dataset")
    if dataset.ground_truth is None:
        raise ValueError(
            f"dataset: {dataset.name} has no annotations to measure against; evaluate needs a list with boxes"
        )
    for image_id, truth in dataset.ground_truth.items():
        if not isinstance(truth, GroundTruth):
            raise TypeError(
                f"dataset: expected the GroundTruth of image {image_id!r}, got {type(truth).__name__}; "
                "make one with GroundTruth.from_boxes"
            )
    truths = dataset.measured_truth
    assert truths is not None  # because it has annotations
    return truths


def _check_arguments(detections: object, max_dets: object) -> None:
    if not isinstance(detections, Mapping):
        raise TypeError(
            f"detections: expected a dict from image id to Detections, got {type(detections).__name__}; "
            "read a result file with detpipe.datasets.coco_results.read_detections"
        )
    for image_id, found in detections.items():
        if not isinstance(found, Detections):
            raise TypeError(
                f"detections: expected Detections of image {image_id!r}, got {type(found).__name__}; "
                "make one with Detections(boxes, scores, labels)"
            )
    if not isinstance(max_dets, int) or isinstance(max_dets, bool):
        raise TypeError(f"max_dets: expected an integer, got {max_dets!r}")
    if max_dets < 1:
        raise ValueError(f"max_dets: expected 1 or more, got {max_dets}")


def _known(
    dataset: Dataset, ground_truth: Mapping[ImageId, GroundTruth], detections: Mapping[ImageId, Detections]
) -> dict[ImageId, Detections]:
    """The detections of the data set's images; the data set may have left a bad image out, so others are allowed."""
    known = {image_id: found for image_id, found in detections.items() if image_id in ground_truth}
    others = sorted(str(image_id) for image_id in detections.keys() - ground_truth.keys())
    if others and not known:
        some = next(iter(ground_truth), None)
        raise ValueError(
            f"detections: none of the {len(others)} images with detections is in {dataset.name} (they have "
            f"{others[0]!r}, it has {some!r}); give the data set that the detections were made for"
        )
    if others:
        log.warning("%s: left out detections of %d images it doesn't have: %s", dataset.name, len(others), others[:3])
    return known


def _warn_of_full_images(detections: Mapping[ImageId, Detections], max_dets: int) -> None:
    full = sum(len(found) >= max_dets for found in detections.values())
    if full:
        log.warning(
            "%d of %d images have the maximum of %d detections, so objects may be missed; keep more detections of each "
            "image, with `detpipe detect` by detect.max_detections=%d",
            full,
            len(detections),
            max_dets,
            2 * max_dets,
        )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _all_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in values.items()}


def _text(value: float) -> str:
    return f"{'-':>6}" if math.isnan(value) else f"{value:6.3f}"


def _html_row(cell: str, values: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{cell}>{html.escape(str(value).strip())}</{cell}>' for value in values)}</tr>"


def _row(name: str, objects: int, values: tuple[float, float, float]) -> str:
    return f"{name}  {objects:>7}  " + "  ".join(map(_text, values))
