"""Caffe's Softmax, SoftmaxWithLoss and Accuracy.

C: classes, along `axis`. A label stands for each place of the other axes, in their order: (N,), (N, 1, H, W) or
whatever holds as many numbers.
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
"""Caffe takes the logarithm of no probability below FLT_MIN, so that no loss is above 87.3."""


class SoftmaxWithLoss(nn.Module):
    """Scores and labels -> the mean of -log(probability of the label), and the probabilities where a second top is.

    normalization: VALID divides by the labels that count, FULL by all, BATCH_SIZE by the places before `axis`, NONE
    by 1; never by less than 1. A label of ignore_label counts nothing. N = 0 gives 0.
    """

    def __init__(self, axis: int, normalization: str, ignore_label: int | None, with_probability: bool) -> None:
        super().__init__()
        self.axis, self.normalization = axis, normalization
        self.ignore_label, self.with_probability = ignore_label, with_probability

    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        logs = F.log_softmax(scores, self.axis)
        labels, counted = _labels(scores, labels, self.axis, self.ignore_label)
        chosen = logs.movedim(self.axis, -1).flatten(0, -2).gather(1, labels[:, None])[:, 0]
        # Caffe's limit is in the value alone: its gradient is always probability minus truth.
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
    """Scores and labels -> the share of places whose label is among the top_k scores. N = 0 gives 0.

    A score that equals the label's counts as better, so that equal scores everywhere are no success.
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
    """Probabilities along `axis`."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    return Built(nn.Softmax(axis_of(layer.softmax_param.axis, len(bottoms[0]))))


def build_softmax_with_loss(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """The loss, and the probabilities as a second top."""
    want_bottoms(bottoms, 2)
    want_tops(layer, 2)
    settings = layer.loss_param
    axis = axis_of(layer.softmax_param.axis, len(bottoms[0]))
    _check_labels(bottoms, axis)
    # `normalize` is the older setting; the newer one wins.
    if settings.HasField("normalize") and not settings.HasField("normalization"):
        normalization = "VALID" if settings.normalize else "BATCH_SIZE"
    else:
        normalization = LossParameter.NormalizationMode.Name(settings.normalization)
    ignored = settings.ignore_label if settings.HasField("ignore_label") else None
    return Built(SoftmaxWithLoss(axis, normalization, ignored, len(layer.top) == 2))


def build_accuracy(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """The accuracy; Caffe's second top, by class, is not there."""
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
    """The labels in a row (int64, 0 in the place of an ignored one), and which of them count, as floats."""
    labels = labels.reshape(-1).to(torch.int64)
    counted = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
    labels = labels.where(counted, 0)
    if labels.numel() and not labels.is_meta and not bool(((labels >= 0) & (labels < scores.shape[axis])).all()):
        raise ValueError(f"expected labels of 0 to {scores.shape[axis] - 1}, got {labels.min()} to {labels.max()}")
    return labels, counted.to(scores.dtype)
