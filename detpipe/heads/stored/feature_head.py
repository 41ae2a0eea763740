"""A head on the features of a frozen network: what it learns from, and what it makes of a region's features.

N: regions, D: feature width, K: classes.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detpipe.heads.bbox_regressor import ridge_regression
from detpipe.heads.region_head import BoxRegression, RegionHeadConfig
from detpipe.structures import BoolArray, Float32Array, Int64Array

Head = TypeVar("Head", bound="FeatureHead")


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled regions.

    features: (N, D) float32. geometry: (N, G) float32, their places and sizes. labels: (N,) int64, 0 background.
    ious: (N,) with the nearest object. deltas: (N, 4) onto it. class_ious: (N, K), the best overlap with an object of
    each class. classes: K names.
    """

    features: Float32Array
    geometry: Float32Array
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
                f"class {self.classes[label - 1]}: expected regions of it in the store, got none; give images with its "
                "objects, or leave it out with dataset.classes=[...]"
            )
        return rows

    def any_positives(self) -> None:
        """Raise ValueError where no class has a region at all."""
        if not (self.labels > 0).any():
            raise ValueError(f"expected regions of one of the classes {self.classes} in the store, got none")


class FeatureHead(nn.Module, abc.ABC):
    """From features to a score in [0, 1] and a box for each class. Its buffers are all that it is.

    A class's numbers come from its own rows of the buffers, by sums of their own: a class more beside it changes none
    of its bits. (Softmax and nearest neighbours, where classes compete, depart from that.)

    mean, scale: (D,), by which features are standardised first. box_weight: (K, D, 4), box_bias: (K, 4); without rows
    where boxes stay as they are. A subclass names its own buffers, and takes them as arguments of these names.
    """

    mean: Tensor
    scale: Tensor
    box_weight: Tensor
    box_bias: Tensor
    SHARED: ClassVar[tuple[str, ...]] = ("mean", "scale")
    """The buffers without a row a class."""

    def __init__(self, **tensors: Tensor) -> None:
        """The buffers. Raises TypeError unless they are the ones that the class names."""
        super().__init__()
        wanted = {"mean", "scale", "box_weight", "box_bias", *type(self).__annotations__} - {"SHARED"}
        if tensors.keys() != wanted:
            raise TypeError(f"{type(self).__name__}: expected the tensors {sorted(wanted)}, got {sorted(tensors)}")
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @property
    @abc.abstractmethod
    def n_classes(self) -> int:
        """K."""

    @abc.abstractmethod
    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        """Standardised features (N, D) and geometry (N, G) -> (N, K) in [0, 1]; N = 0 gives no rows."""

    def forward(self, features: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, D), (N, G) float32 -> scores (N, K + 1), column 0 what the best leaves; deltas (N, K, 4) or None."""
        x = (features - self.mean) * self.scale
        scores = self.class_scores(x, geometry)
        best = scores.amax(dim=1, keepdim=True) if self.n_classes else scores.new_zeros(len(scores), 1)
        return torch.cat([1 - best, scores], dim=1), self.deltas(x, geometry)

    def deltas(self, x: Tensor, geometry: Tensor) -> Tensor | None:
        """(N, D), (N, G) -> (N, K, 4), a product by itself for each class; None without box regression."""
        del geometry
        if not len(self.box_weight):
            return None
        pairs = zip(self.box_weight, self.box_bias, strict=True)
        return torch.stack([x @ weight + bias for weight, bias in pairs], dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """The buffers by name, which are the arguments that make this head again."""
        return dict(self.named_buffers())


def scores_by_class(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """features . weight_k + bias_k for each class: (N, D), (K, D), (K,) -> (N, K).

    One product a class: in a product of matrices the order of a sum may depend on how many columns there are.
    """
    columns = [torch.mv(features, one) + offset for one, offset in zip(weight, bias, strict=True)]
    return torch.stack(columns, dim=1) if columns else features.new_zeros(len(features), 0)


def sigmoid_by_class(margins: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """sigmoid(slope_k margin_k + offset_k): (N, K), (K,), (K,) -> (N, K), column by column.

    The end of a row of numbers goes another way through the processor than its middle, with other last bits: where a
    class stands among others must not decide which.
    """
    columns = [
        torch.sigmoid(one.contiguous() * a + b) for one, a, b in zip(margins.unbind(dim=1), slope, offset, strict=True)
    ]
    return torch.stack(columns, dim=1) if columns else margins


@dataclass(kw_only=True)
class StoredHeadConfig(RegionHeadConfig, abc.ABC):
    """A head that trains on stored features: the base of one dataclass a kind. Boxes are regressed by ridge, or not."""

    MODULE: ClassVar[type[FeatureHead]]
    """The module that it trains. Its buffers are the arguments that make it again."""
    TORCHRUN: ClassVar[bool] = False
    STORED_FEATURES: ClassVar[bool] = True
    JOINT: ClassVar[bool] = False
    """Whether boxes can be learnt with the classes."""
    NEEDS_EACH: ClassVar[bool] = True
    """Whether each class must have objects; else one without any is never found."""
    TOGETHER: ClassVar[bool] = False
    """Whether classes compete, so that all are trained anew where one comes or goes."""
    USES_BF16: ClassVar[bool] = False
    """Whether training computes in bf16 when asked to. Other heads give the same result with and without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_regression is BoxRegression.joint and not self.JOINT:
            raise ValueError("head.box_regression: expected ridge or none for a head on stored features, got joint")

    def train(self, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """The head of all classes of the examples. Raises ValueError for a class without any.

        bf16: train in bf16, on the CPU; only heads with `USES_BF16` do.
        """
        mean, scale = standardisation(examples.features)
        return self.fit(standardised(examples, mean, scale), self._shared(mean, scale), seed=seed, bf16=bf16)

    def check_class(self, head: FeatureHead, name: str) -> None:
        """Raise ValueError or FileNotFoundError where it can't take a class of this name, whatever its regions."""

    def add_class(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """The head with the examples' last class, which it doesn't know yet."""
        seen = standardised(examples, head.mean.numpy(), head.scale.numpy())
        return self.extend(head, seen, seed=seed, bf16=bf16)

    def remove_class(
        self, head: FeatureHead, label: int, examples: Examples, *, seed: int, bf16: bool = False
    ) -> FeatureHead:
        """The head without a class, 1..K of its own. examples: those of the classes that stay."""
        del examples, seed, bf16
        kept = [row for row in range(head.n_classes) if row != label - 1]
        # Without box regression its tensors have no rows.
        return type(head)(
            **{
                name: tensor if name in head.SHARED or not len(tensor) else tensor[kept]
                for name, tensor in head.tensors().items()
            }
        )

    @abc.abstractmethod
    def fit(self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False) -> FeatureHead:
        """Train on standardised features. shared: "mean" and "scale", which the head takes."""

    @abc.abstractmethod
    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """The head with the last class of the examples; theirs are the head's standardised features."""

    def _shared(self, mean: Float32Array, scale: Float32Array) -> dict[str, Tensor]:
        return {"mean": torch.from_numpy(mean), "scale": torch.from_numpy(scale)}

    def box_tensors(self, examples: Examples, labels: list[int]) -> dict[str, Tensor]:
        """Ridge regression of the boxes of these classes, as box_weight and box_bias (see FeatureHead), or no rows."""
        width = examples.features.shape[1]
        if self.box_regression is not BoxRegression.ridge:
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


def joined(head: Head, other: Head) -> Head:
    """The classes of the second head after those of the first, whose shared buffers stay."""
    theirs = other.tensors()
    tensors = {
        name: tensor if name in head.SHARED else torch.cat([tensor, theirs[name]])
        for name, tensor in head.tensors().items()
    }
    return type(head)(**tensors)


def standardisation(features: Float32Array) -> tuple[Float32Array, Float32Array]:
    """(mean, scale), (D,) each, for (x - mean) scale of variance 1; a feature that hardly varies isn't blown up."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    floor = max(1e-3 * float(deviation.mean()), 1e-6)
    return mean, (1 / np.maximum(deviation, floor)).astype(np.float32)


def standardised(examples: Examples, mean: Float32Array, scale: Float32Array) -> Examples:
    """The examples with (x - mean) scale for their features."""
    features = torch.from_numpy(examples.features) - torch.from_numpy(mean)  # on all cores
    features *= torch.from_numpy(scale)
    return replace(examples, features=features.numpy())


def any_overlap(examples: Examples, at_least: float) -> BoolArray:
    """(N,) bool: whether a region overlaps an object of any class so much."""
    return np.asarray((examples.class_ious >= at_least).any(axis=1), dtype=np.bool_)
