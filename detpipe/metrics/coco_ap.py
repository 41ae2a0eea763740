"""COCO's twelve metrics, computed by COCO's own evaluation code.

pycocotools is the reference. faster-coco-eval is the same code in C++ and gives the same numbers much faster. Both get
their data from memory. Their arrays are summarised here, because their own summaries are printed.

T: 10 IoU thresholds, 0.5 to 0.95. R: 101 recalls. K: classes. A: areas all, small, medium, large. M: at most 1, 10 and
100 detections per class and image.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.boxes import area
from detpipe.metrics.matching import check_covered
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId, WrittenDetections, WrittenTruth

log = logging.getLogger(__name__)

COCO_NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Average precisions and recalls in COCO's order; s, m, l: object areas below 32², below 96², and above, in pixels."""


class CocoEvaluator(Enum):
    """The package that computes COCO's metrics."""

    AUTO = "auto"
    """faster-coco-eval if it is installed, else pycocotools."""
    PYCOCOTOOLS = "pycocotools"
    FASTER_COCO_EVAL = "faster_coco_eval"


@dataclass(frozen=True, eq=False)
class CocoResult:
    """numbers: by the names of COCO_NUMBERS, in [0, 1]. per_class: AP (IoU 0.5 to 0.95) by class name.

    NaN without objects (-1 in pycocotools).
    """

    numbers: dict[str, float]
    per_class: dict[str, float]

    @property
    def ap(self) -> float:
        """The mean AP at IoU 0.5 to 0.95: numbers["AP"]."""
        return self.numbers["AP"]

    @property
    def ap50(self) -> float:
        """The mean AP at IoU 0.5: numbers["AP50"]."""
        return self.numbers["AP50"]

    @property
    def ap75(self) -> float:
        """The mean AP at IoU 0.75: numbers["AP75"]."""
        return self.numbers["AP75"]


def coco_ap(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    *,
    evaluator: CocoEvaluator = CocoEvaluator.AUTO,
) -> CocoResult:
    """COCO's detection metrics for boxes.

    ground_truth: of every evaluated image; `areas` gives the object size, and crowds are ignored as in COCO. COCO has
    no difficult objects; they count like others. detections: an image without an entry has none; at most the 100 best
    of a class in an image count. classes: label k is classes[k - 1]. No images, objects or detections give NaN or 0,
    not an error. Equal scores are ordered by image id, then as in the image's detections, as in COCO. Objects and
    detections of files (`Dataset.measured_truth`, `read_detections`) are compared with the files' own float64 numbers,
    so that the result equals that of pycocotools on the two files. Raises ValueError for detections of an unknown image
    and for labels outside 1..K, ModuleNotFoundError for FASTER_COCO_EVAL if it isn't installed.
    """
    check_covered(ground_truth, detections, classes)
    objects = _ground_truth_json(ground_truth, classes)
    found = objects | {"annotations": _detection_annotations(ground_truth, detections)}
    precision, recall = _accumulate(objects, found, evaluator)
    return CocoResult(
        numbers=_summarize(precision, recall),
        per_class={name: _mean(precision[:, :, k, 0, -1]) for k, name in enumerate(classes)},
    )


def _numbered(ground_truth: Mapping[ImageId, GroundTruth]) -> list[tuple[int, ImageId]]:
    """Image numbers from 1 in the order of the ids, as in COCO, so that equal scores have the same order as there."""
    return list(enumerate(sorted(ground_truth, key=lambda image_id: (isinstance(image_id, str), image_id)), start=1))


def _ground_truth_json(ground_truth: Mapping[ImageId, GroundTruth], classes: Sequence[str]) -> dict[str, Any]:
    """The content of a COCO file, with labels 1..K as categories."""
    annotations: list[dict[str, Any]] = []
    for number, image_id in _numbered(ground_truth):
        gt = ground_truth[image_id]
        if isinstance(gt, WrittenTruth):
            xywh, areas = gt.xywh.tolist(), gt.written_areas.tolist()
        else:
            xywh, areas = _xywh(gt.boxes), gt.areas.tolist()
        columns = (xywh, gt.labels.tolist(), areas, gt.crowd.tolist())
        annotations.extend(
            {"image_id": number, "bbox": box, "category_id": label, "area": size, "iscrowd": int(crowd)}
            for box, label, size, crowd in zip(*columns, strict=True)
        )
    return {
        "images": [{"id": number} for number, _ in _numbered(ground_truth)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
        "annotations": _with_ids(annotations),
    }


def _detection_annotations(
    ground_truth: Mapping[ImageId, GroundTruth], detections: Mapping[ImageId, Detections]
) -> list[dict[str, Any]]:
    """The annotations that COCO.loadRes makes from a result file; it can't read an empty one."""
    annotations: list[dict[str, Any]] = []
    for number, image_id in _numbered(ground_truth):
        if image_id not in detections:
            continue
        found = detections[image_id]
        if isinstance(found, WrittenDetections):
            areas = (found.xywh[:, 2] * found.xywh[:, 3]).tolist()
            xywh, scores = found.xywh.tolist(), found.written_scores.tolist()
        else:
            xywh, areas, scores = _xywh(found.boxes), area(found.boxes).tolist(), found.scores.tolist()
        columns = (xywh, found.labels.tolist(), areas, scores)
        annotations.extend(
            {"image_id": number, "bbox": box, "category_id": label, "area": size, "score": score, "iscrowd": 0}
            for box, label, size, score in zip(*columns, strict=True)
        )
    return _with_ids(annotations)


def _with_ids(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # From 1, because COCOeval interprets a match with annotation 0 as no match.
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return annotations


def _xywh(boxes: Float32Array) -> list[list[float]]:
    corners = boxes.astype(np.float64)
    xywh: list[list[float]] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    return xywh


def _accumulate(
    objects: dict[str, Any], found: dict[str, Any], evaluator: CocoEvaluator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M); -1 without objects."""
    if not objects["images"] or not objects["categories"]:
        shape = (10, 101, max(len(objects["categories"]), 1), 4, 3)
        return np.full(shape, -1.0), np.full(shape[:1] + shape[2:], -1.0)
    coco_class, evaluator_class = _code(evaluator)
    log.debug("COCO's metrics are computed by %s", coco_class.__module__)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints each step
        run = evaluator_class(_index(coco_class(), objects), _index(coco_class(), found), "bbox")
        run.evaluate()
        run.accumulate()
    return np.asarray(run.eval["precision"]), np.asarray(run.eval["recall"])


def check_evaluator() -> None:
    """Raise ImportError if the package that `coco_ap` uses by default can't be imported. Call it before any work."""
    try:
        _code(CocoEvaluator.AUTO)
    except (ImportError, OSError) as error:  # OSError: a library that the package was built for is missing
        raise ImportError(
            f"COCO's metrics: expected pycocotools or faster-coco-eval, got an error ({error}); pip install --upgrade "
            "--force-reinstall pycocotools, and uninstall faster-coco-eval if it is the one that fails"
        ) from error


def _code(evaluator: CocoEvaluator) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The classes COCO and COCOeval of the chosen package; both packages have the same interface."""
    installed = importlib.util.find_spec("faster_coco_eval") is not None
    if evaluator is CocoEvaluator.FASTER_COCO_EVAL and not installed:
        raise ModuleNotFoundError("faster-coco-eval is not installed; pip install 'detpipe[fast-eval]'")
    if installed and evaluator is not CocoEvaluator.PYCOCOTOOLS:
        import faster_coco_eval

        evaluator_class = functools.partial(faster_coco_eval.COCOeval_faster, print_function=log.debug)
        return faster_coco_eval.COCO, evaluator_class
    import pycocotools.coco
    import pycocotools.cocoeval

    return pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval


def _index(coco: Any, content: dict[str, Any]) -> Any:
    coco.dataset = content
    coco.createIndex()
    return coco


def _summarize(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]) -> dict[str, float]:
    """The means of COCOeval.summarize, without printing. Areas: all, small, medium, large; the last M is 100."""
    precision_100 = precision[..., -1]
    at_50, at_75 = 0, 5  # indices of the thresholds 0.5, 0.55 ... 0.95
    values = (
        _mean(precision_100[..., 0]),
        _mean(precision_100[at_50, ..., 0]),
        _mean(precision_100[at_75, ..., 0]),
        *(_mean(precision_100[..., size]) for size in (1, 2, 3)),
        *(_mean(recall[..., 0, most]) for most in (0, 1, 2)),
        *(_mean(recall[..., size, -1]) for size in (1, 2, 3)),
    )
    return dict(zip(COCO_NUMBERS, values, strict=True))


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
