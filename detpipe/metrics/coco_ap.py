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
    so that the result equals pycocotools' result on the two files. Raises ValueError for detections of an unknown image
    and for labels outside 1..K, ModuleNotFoundError for FASTER_COCO_EVAL if it isn't installed.
    """
    check_covered(ground_truth, detections, classes)
    objects, found = _object_rows(ground_truth), _detection_rows(ground_truth, detections)
    code = _code(evaluator)
    log.debug("COCO's metrics are computed by %s", code[0].__module__)
    # One class at a time: COCO's code keeps a record of each class, area and image until it has all.
    by_class = [_accumulate(objects.of_class(k), found.of_class(k), code) for k in range(1, len(classes) + 1)]
    by_class = by_class or [_nothing()]
    precision, recall = (np.concatenate(arrays, axis=-3) for arrays in zip(*by_class, strict=True))
    return CocoResult(
        numbers=_summarize(precision, recall),
        per_class={name: _mean(precision[:, :, k, 0, -1]) for k, name in enumerate(classes)},
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Objects or detections of all images, N of them, in the order of the images and, in an image, in their own.

    images: (N,) int64, from 1. boxes: (N, 4) float64, x y w h. labels: (N,) int64. areas: (N,) float64. more: the
    columns that only one kind has, (N,) each, by COCO's name.
    """

    images: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    areas: npt.NDArray[np.float64]
    more: Mapping[str, npt.NDArray[np.generic]]

    @functools.cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        """The rows by class."""
        return np.argsort(self.labels, kind="stable")

    def of_class(self, label: int) -> list[dict[str, Any]]:
        """The annotations of one class in a COCO file."""
        first, last = np.searchsorted(self.labels[self._order], [label, label + 1])
        rows = self._order[first:last]
        columns = {"image_id": self.images, "bbox": self.boxes, "area": self.areas, **self.more}
        values = zip(*(column[rows].tolist() for column in columns.values()), strict=True)
        # From 1, because COCOeval interprets a match with annotation 0 as no match.
        return [
            {"id": number, "category_id": label, **dict(zip(columns, one, strict=True))}
            for number, one in enumerate(values, start=1)
        ]


def _numbered(ground_truth: Mapping[ImageId, GroundTruth]) -> list[tuple[int, ImageId]]:
    """Image numbers from 1 in the order of the ids, as in COCO, so that equal scores have the same order as there."""
    return list(enumerate(sorted(ground_truth, key=lambda image_id: (isinstance(image_id, str), image_id)), start=1))


def _object_rows(ground_truth: Mapping[ImageId, GroundTruth]) -> _Rows:
    some = [(number, ground_truth[image_id]) for number, image_id in _numbered(ground_truth)]
    return _Rows(
        images=np.repeat([number for number, _ in some], [len(one) for _, one in some]).astype(np.int64),
        boxes=_joined([one.xywh if isinstance(one, WrittenTruth) else _xywh(one.boxes) for _, one in some], (0, 4)),
        labels=_joined([one.labels for _, one in some]).astype(np.int64),
        areas=_joined([one.written_areas if isinstance(one, WrittenTruth) else one.areas for _, one in some]),
        more={"iscrowd": _joined([one.crowd for _, one in some]).astype(np.int64)},
    )


def _detection_rows(ground_truth: Mapping[ImageId, GroundTruth], detections: Mapping[ImageId, Detections]) -> _Rows:
    """As COCO.loadRes makes annotations from a result file; it can't read an empty one."""
    numbered = [(number, image_id) for number, image_id in _numbered(ground_truth) if image_id in detections]
    some = [(number, detections[image_id]) for number, image_id in numbered]
    columns = [_columns(one) for _, one in some]
    labels = _joined([one.labels for _, one in some]).astype(np.int64)
    return _Rows(
        images=np.repeat([number for number, _ in some], [len(one) for _, one in some]).astype(np.int64),
        boxes=_joined([boxes for boxes, _, _ in columns], (0, 4)),
        labels=labels,
        areas=_joined([areas for _, areas, _ in columns]),
        more={"score": _joined([scores for _, _, scores in columns]), "iscrowd": np.zeros(len(labels), np.int64)},
    )


def _columns(found: Detections) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Boxes as x y w h, areas and scores, with the file's own numbers if they are from a file."""
    if isinstance(found, WrittenDetections):
        return found.xywh, found.xywh[:, 2] * found.xywh[:, 3], found.written_scores
    return _xywh(found.boxes), area(found.boxes), found.scores


def _joined(parts: Sequence[npt.NDArray[Any]], empty: tuple[int, ...] = (0,)) -> npt.NDArray[np.float64]:
    """All parts in one array of float64, which holds float32 exactly."""
    return np.concatenate([np.zeros(empty), *parts], dtype=np.float64)


def _xywh(boxes: Float32Array) -> npt.NDArray[np.float64]:
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _nothing() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What `_accumulate` gives for a class without objects."""
    return np.full((10, 101, 1, 4, 3), -1.0), np.full((10, 1, 4, 3), -1.0)


def _accumulate(
    objects: list[dict[str, Any]], found: list[dict[str, Any]], code: tuple[Callable[..., Any], Callable[..., Any]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Precision (T, R, 1, A, M) and recall (T, 1, A, M) of one class; -1 without objects."""
    if not objects:
        return _nothing()
    coco_class, evaluator_class = code
    images = sorted({one["image_id"] for one in (*objects, *found)})  # others change nothing
    rest = {"images": [{"id": number} for number in images], "categories": [{"id": objects[0]["category_id"]}]}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints each step
        truth, result = (_index(coco_class(), {**rest, "annotations": some}) for some in (objects, found))
        run = evaluator_class(truth, result, "bbox")
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
