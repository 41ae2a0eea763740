"""A head on the features of a frozen network: what it learns from, and what it makes of a region's features.

N: regions, D: feature width, K: classes.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detpipe.heads.bbox_regressor import ridge_regression
from detpipe.heads.region_head import BoxRegression, RegionHead
from detpipe.structures import BoolArray, Float32Array, Int64Array


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled regions. features: (N, D) float32. labels: (N,) int64, 0 background. ious: (N,) with the nearest object.

    deltas: (N, 4) onto it. class_ious: (N, K), the best overlap with an object of each class. classes: K names.
    """

    features: Float32Array
    labels: Int64Array
    ious: Float32Array
    deltas: Float32Array
    class_ious: npt.NDArray[np.floating]
    classes: tuple[str, ...]

    def negatives(self, label: int, below: float) -> Int64Array:
        """The rows that are no example of a class: whose IoU with each of its objects is lower."""
        return np.flatnonzero(self.class_ious[:, label - 1] < below)

    def positives(self, label: int) -> Int64Array:
        """The rows of a class. Raises ValueError where it has none: nothing can be learnt of it."""
        rows = np.flatnonzero(self.labels == label)
        if not len(rows):
            raise ValueError(
                f"class {self.classes[label - 1]}: wanted regions of it in the store, got none; give images with its "
                "objects, or leave it out with dataset.classes=[...]"
            )
        return rows


class FeatureHead(nn.Module, abc.ABC):
    """From features to a score in [0, 1] and a box for each class. Its buffers are all that it is.

    A class's numbers come from its own rows of the buffers, by sums of their own: a class more beside it changes none
    of its bits. (Softmax and nearest neighbours, where classes compete, depart from that.)

    box_weight: (K, D, 4), box_bias: (K, 4); without rows where boxes stay as they are.
    """

    box_weight: Tensor
    box_bias: Tensor

    def __init__(self, *, box_weight: Tensor, box_bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("box_weight", box_weight)
        self.register_buffer("box_bias", box_bias)

    @property
    @abc.abstractmethod
    def n_classes(self) -> int:
        """K."""

    @abc.abstractmethod
    def class_scores(self, features: Tensor) -> Tensor:
        """(N, D) float32 -> (N, K) in [0, 1]; N = 0 gives no rows."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, D) float32 -> scores (N, K + 1), column 0 what the best class leaves, and deltas (N, K, 4) or None."""
        scores = self.class_scores(features)
        best = scores.amax(dim=1, keepdim=True) if self.n_classes else scores.new_zeros(len(scores), 1)
        return torch.cat([1 - best, scores], dim=1), self.deltas(features)

    def deltas(self, features: Tensor) -> Tensor | None:
        """(N, D) -> (N, K, 4), a product by itself for each class; None without box regression."""
        if not len(self.box_weight):
            return None
        pairs = zip(self.box_weight, self.box_bias, strict=True)
        return torch.stack([features @ weight + bias for weight, bias in pairs], dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """The buffers by name, which are the arguments that make this head again."""
        return dict(self.named_buffers())


def scores_by_class(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """features . weight_k + bias_k for each class: (N, D), (K, D), (K,) -> (N, K).

    One product a class: in a product of matrices the order of a sum may depend on how many columns there are.
    """
    columns = [torch.mv(features, one) + offset for one, offset in zip(weight, bias, strict=True)]
    return torch.stack(columns, dim=1) if columns else features.new_zeros(len(features), 0)


@dataclass(kw_only=True)
class StoredHead(RegionHead):
    """A head that trains on stored features: the base of one dataclass a kind. Boxes are regressed by ridge, or not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_regression is BoxRegression.joint:
            raise ValueError("head.box_regression: wanted ridge or none for a head on stored features, got joint")

    def train(self, examples: Examples, *, seed: int) -> FeatureHead:
        """The head of all classes of the examples. Raises ValueError for a class without any."""
        raise NotImplementedError

    def add_class(self, head: FeatureHead, examples: Examples, *, seed: int) -> FeatureHead:
        """The head with the examples' last class, which it doesn't know; default: all are trained anew."""
        del head
        return self.train(examples, seed=seed)

    def box_tensors(self, examples: Examples, labels: list[int]) -> dict[str, Tensor]:
        """Ridge regression of the boxes of these classes, as box_weight and box_bias (see FeatureHead)."""
        width = examples.features.shape[1]
        if self.box_regression is BoxRegression.none:
            return {"box_weight": torch.zeros(0, width, 4), "box_bias": torch.zeros(0, 4)}
        solved = [self._box_of(examples, label, width) for label in labels]
        return {
            "box_weight": torch.from_numpy(np.stack([weight for weight, _ in solved]).astype(np.float32)),
            "box_bias": torch.from_numpy(np.stack([bias for _, bias in solved]).astype(np.float32)),
        }

    def _box_of(
        self, examples: Examples, label: int, width: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """A class with no region that overlaps its object enough keeps its boxes as they are."""
        rows = np.flatnonzero((examples.labels == label) & (examples.ious > self.ridge_iou))
        if not len(rows):
            return np.zeros((width, 4)), np.zeros(4)
        return ridge_regression(examples.features[rows], examples.deltas[rows], self.ridge)


def joined(head: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """The buffers of two heads whose every buffer has a row a class: the classes of the second after the first's."""
    return {name: torch.cat([tensor, other[name]]) for name, tensor in head.items()}


def mean_norm_scale(features: Float32Array, norm: float) -> float:
    """By what features are multiplied for this mean norm. No features, or none but zeros: 1."""
    mean = float(np.linalg.norm(features, axis=1).mean()) if len(features) else 0.0
    return norm / mean if mean > 0 else 1.0


def any_overlap(examples: Examples, at_least: float) -> BoolArray:
    """(N,) bool: whether a region overlaps an object of any class so much."""
    return np.asarray((examples.class_ious >= at_least).any(axis=1), dtype=np.bool_)
