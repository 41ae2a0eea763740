"""Caffe's Softmax, SoftmaxWithLoss and Accuracy.

C: number of classes, along `axis`. There is one label for each position of the other axes, in their order. Labels may
have any shape with this number of elements, such as (N,) or (N, 1, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, axis_of, count, positive, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter, LossParameter

LOG_SMALLEST = math.log(torch.finfo(torch.float32).tiny)
"""Caffe clamps probabilities at FLT_MIN before the logarithm, so a loss is at most 87.3."""


class SoftmaxWithLoss(nn.Module):
    """Scores and labels -> the mean of -log(probability of the label), and optionally the probabilities.

    normalization: the divisor of the sum: VALID: number of labels that are not ignored. FULL: number of all labels.
    BATCH_SIZE: number of elements of the axes before `axis`. NONE: 1. It is at least 1. Labels equal to ignore_label
    are ignored. N = 0 gives 0.
    """

    def __init__(self, axis: int, normalization: str, ignore_label: int | None, with_probability: bool) -> None:
        super().__init__()
        self.axis, self.normalization = axis, normalization
        self.ignore_label, self.with_probability = ignore_label, with_probability

    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        logs = F.log_softmax(scores, self.axis)
        labels, counted = _labels(scores, labels, self.axis, self.ignore_label)
        chosen = logs.movedim(self.axis, -1).flatten(0, -2).gather(1, labels[:, None])[:, 0]
        # Caffe clamps only the value. The gradient is always probability minus target.
        chosen = chosen + (chosen.clamp(min=LOG_SMALLEST) - chosen).detach()
        loss = -(chosen * counted).sum() / self._divisor(scores, counted)
        return (loss, logs.exp()) if self.with_probability else loss

    def extra_repr(self) -> str:
        return f"axis={self.axis}, normalization={self.normalization}, ignore_label={self.ignore_label}"

    def _divisor(self, scores: torch.Tensor, counted: torch.Tensor) -> torch.Tensor | float:
        match self.normalization:
            case "VALID":
                return counted.sum().clamp(min=1)
            case "FULL":
                return max(1.0, counted.numel())
            case "BATCH_SIZE":
                return max(1.0, count(scores.shape[: self.axis]))
            case _:
                return 1.0


class Accuracy(nn.Module):
    """Scores and labels -> the share of labels that are among the top_k scores. N = 0 gives 0.

    A score equal to the label's score counts as better, so constant scores are not counted as correct.
    """

    def __init__(self, axis: int, top_k: int, ignore_label: int | None) -> None:
        super().__init__()
        self.axis, self.top_k, self.ignore_label = axis, top_k, ignore_label

    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels, counted = _labels(scores, labels, self.axis, self.ignore_label)
        flat = scores.detach().movedim(self.axis, -1).flatten(0, -2)
        better = (flat >= flat.gather(1, labels[:, None])).sum(1) - 1
        return ((better < self.top_k) * counted).sum() / counted.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, top_k={self.top_k}, ignore_label={self.ignore_label}"


def build_softmax(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a softmax along `axis`."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    return Built(nn.Softmax(axis_of(layer.softmax_param.axis, len(bottoms[0]))))


def build_softmax_with_loss(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build the loss. The probabilities are an optional second top."""
    want_bottoms(bottoms, 2)
    want_tops(layer, 2)
    settings = layer.loss_param
    axis = axis_of(layer.softmax_param.axis, len(bottoms[0]))
    _check_labels(bottoms, axis)
    # `normalize` is Caffe's older setting; `normalization` takes precedence.
    if settings.HasField("normalize") and not settings.HasField("normalization"):
        normalization = "VALID" if settings.normalize else "BATCH_SIZE"
    else:
        normalization = LossParameter.NormalizationMode.Name(settings.normalization)
    ignored = settings.ignore_label if settings.HasField("ignore_label") else None
    return Built(SoftmaxWithLoss(axis, normalization, ignored, len(layer.top) == 2))


def build_accuracy(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build the accuracy. Caffe's second top, the accuracy per class, is not supported."""
    want_bottoms(bottoms, 2)
    want_tops(layer)
    settings = layer.accuracy_param
    axis = axis_of(settings.axis, len(bottoms[0]))
    _check_labels(bottoms, axis)
    top_k = positive(settings.top_k, "top_k")
    if top_k > bottoms[0][axis]:
        raise ValueError(f"expected top_k of at most {bottoms[0][axis]} classes, got {top_k}")
    return Built(Accuracy(axis, top_k, settings.ignore_label if settings.HasField("ignore_label") else None))


def _check_labels(bottoms: Sequence[Shape], axis: int) -> None:
    places = count(bottoms[0][:axis]) * count(bottoms[0][axis + 1 :])
    if count(bottoms[1]) != places:
        raise ValueError(f"expected {places} labels for scores {bottoms[0]}, got labels {bottoms[1]}")


def _labels(
    scores: torch.Tensor, labels: torch.Tensor, axis: int, ignored: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels as a vector (int64, 0 for ignored ones), and 1.0 for each label that counts, 0.0 for ignored ones."""
    labels = labels.reshape(-1).to(torch.int64)
    counted = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
    labels = labels.where(counted, 0)
    if labels.numel() and not labels.is_meta and not bool(((labels >= 0) & (labels < scores.shape[axis])).all()):
        raise ValueError(f"expected labels of 0 to {scores.shape[axis] - 1}, got {labels.min()} to {labels.max()}")
    return labels, counted.to(scores.dtype)
