"""Metrics of image classifiers: top-1, top-5, loss, accuracy per class, confusion matrix, calibration.

N: images, K: classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.structures import Float32Array, Float64Array, Int64Array

BINS = 15
"""Number of confidence bins, as in Guo et al. 2017 ("On Calibration of Modern Neural Networks", section 2)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence and accuracy in BINS equal bins of the confidence.

    edges: (BINS + 1,). images: (BINS,) int64. confidence, accuracy: (BINS,) means, NaN for an empty bin. ece: the
    expected calibration error, the mean of |accuracy - confidence| over images (Guo et al. 2017, eq. 3); NaN without
    images.
    """

    edges: Float64Array
    images: Int64Array
    confidence: Float64Array
    accuracy: Float64Array
    ece: float


@dataclass(frozen=True, eq=False)
class ClassificationMetrics:
    """The results of one evaluation. Shares are from 0 to 1, NaN without images.

    loss: mean cross entropy in nats. confusion: (K, K) int64, rows are labels, columns are predictions.
    """

    classes: tuple[str, ...]
    top1: float
    top5: float
    loss: float
    confusion: Int64Array
    calibration: Calibration

    @property
    def images(self) -> Int64Array:
        """(K,) number of images of each class."""
        found: Int64Array = self.confusion.sum(axis=1)
        return found

    @property
    def per_class(self) -> Float64Array:
        """(K,) accuracy on the images of each class; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            found: Float64Array = np.diag(self.confusion) / self.images
        return found

    def confused(self) -> list[tuple[int, int, int]]:
        """(label, prediction, images) of each confusion, the most frequent first, ties by label."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        pairs = [(int(label), int(chosen), int(wrong[label, chosen])) for label, chosen in np.argwhere(wrong)]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Values for JSON; None for NaN. Classes without images are left out of per_class."""
        return {
            "top1": _plain(self.top1),
            "top5": _plain(self.top5),
            "loss": _plain(self.loss),
            "ece": _plain(self.calibration.ece),
            "images": int(self.confusion.sum()),
            "classes": len(self.classes),
            "per_class": {
                name: {"accuracy": round(float(accuracy), 6), "images": int(images)}
                for name, accuracy, images in zip(self.classes, self.per_class, self.images, strict=True)
                if images
            },
            "seconds": round(seconds, 3),
        }

    def to_text(self) -> str:
        """Two lines for a terminal."""
        return (
            f"{int(self.confusion.sum())} images of {int((self.images > 0).sum())} classes\n"
            f"top-1 {self.top1:.4f}, top-5 {self.top5:.4f}, loss {self.loss:.4f}, ECE {self.calibration.ece:.4f}"
        )


def classification_metrics(logits: Float32Array, labels: Int64Array, classes: Sequence[str]) -> ClassificationMetrics:
    """Evaluate (N, K) logits with (N,) labels in 0..K-1.

    The prediction is the first of the largest logits. A label is in the top five if fewer than five logits are greater.
    No images give NaN for any shape of `logits`. Raises ValueError if shapes or labels don't fit, or a logit is NaN or
    infinite.
    """
    count, n_classes = len(labels), len(classes)
    if count and logits.shape != (count, n_classes):
        raise ValueError(f"expected logits of shape {(count, n_classes)}, got {logits.shape}")
    if count and (labels.min() < 0 or labels.max() >= n_classes):
        raise ValueError(f"expected labels in 0..{n_classes - 1}, got {labels.min()} to {labels.max()}")
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits, got infinity or NaN; check whether the training has diverged")
    logits = logits.reshape(count, n_classes)
    # In float64 and minus the largest logit, so that exp can't overflow.
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf) if count else logits
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    chosen = logits.argmax(axis=1) if count else np.zeros(0, dtype=np.int64)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    greater = (logits > own).sum(axis=1)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (labels, chosen), 1)
    return ClassificationMetrics(
        classes=tuple(classes),
        top1=_mean(chosen == labels),
        top5=_mean((greater < 5) | (chosen == labels)),
        loss=_mean(-np.take_along_axis(log_softmax, labels[:, None], axis=1)),
        confusion=confusion,
        calibration=calibrate(np.exp(log_softmax).max(axis=1, initial=0), chosen == labels),
    )


def calibrate(confidence: Float64Array, right: npt.NDArray[np.bool_]) -> Calibration:
    """Calibration of (N,) confidences in 0..1; right: (N,) correct predictions. A bin includes its upper edge."""
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, BINS - 1)
    images = np.bincount(bins, minlength=BINS).astype(np.int64)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bins, weights=confidence, minlength=BINS) / images
        accuracy = np.bincount(bins, weights=right.astype(np.float64), minlength=BINS) / images
    gaps = np.nan_to_num(np.abs(accuracy - mean_confidence)) * images
    ece = float(gaps.sum() / len(right)) if len(right) else float("nan")
    return Calibration(edges, images, mean_confidence, accuracy, ece)


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
