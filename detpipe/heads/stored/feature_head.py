"""Heads on the features of a frozen network: training examples, the module, and the base of their settings.

N: number of regions. D: feature width. G: number of geometry values. K: number of classes.
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

    features: (N, D) float32. geometry: (N, G) float32, position and size. labels: (N,) int64, 0 is background.
    ious: (N,), IoU with the nearest object. deltas: (N, 4), from the region to that object. class_ious: (N, K), the
    largest IoU with an object of each class. classes: K names. sets: (N,) int64, regions with the same number are those
    of one view of one image; None if it is not known.
    """

    features: Float32Array
    geometry: Float32Array
    labels: Int64Array
    ious: Float32Array
    deltas: Float32Array
    class_ious: npt.NDArray[np.floating]
    classes: tuple[str, ...]
    sets: Int64Array | None = None

    def negatives(self, label: int, below: float) -> Int64Array:
        """The negatives of a class: rows whose IoU with each of its objects is lower than `below`."""
        return np.flatnonzero(self.class_ious[:, label - 1] < below)

    def positives(self, label: int) -> Int64Array:
        """The rows with the label of a class. Raises ValueError if there are none."""
        rows = np.flatnonzero(self.labels == label)
        if not len(rows):
            raise ValueError(
                f"class {self.classes[label - 1]}: expected regions of this class in the feature store, got none; add "
                "images with its objects, or leave the class out with dataset.classes=[...]"
            )
        return rows

    def check_any_positives(self) -> None:
        """Raise ValueError if there is no region of any class."""
        if not (self.labels > 0).any():
            raise ValueError(
                f"expected regions of at least one of the classes {self.classes} in the feature store, got none; add "
                "images with their objects"
            )


class FeatureHead(nn.Module, abc.ABC):
    """Predicts a score in [0, 1] and a box for each class from features. The buffers are its complete state.

    Each class is computed separately from its own rows of the buffers, so adding a class does not change the results
    of the others in any bit. (Exceptions: heads in which classes compete, such as softmax and nearest neighbours.)

    mean, scale: (D,), to standardise the features. box_weight: (K, D, 4), box_bias: (K, 4), the box regression; without
    rows if there is none. A subclass annotates its own buffers. The constructor takes all buffers by name.
    """

    mean: Tensor
    scale: Tensor
    box_weight: Tensor
    box_bias: Tensor
    SHARED: ClassVar[tuple[str, ...]] = ("mean", "scale")
    """The buffers that do not have one row per class."""

    def __init__(self, **tensors: Tensor) -> None:
        """tensors: the buffers by name. Raises TypeError for missing or unknown ones."""
        super().__init__()
        wanted = {"mean", "scale", "box_weight", "box_bias", *type(self).__annotations__} - {"SHARED"}
        if tensors.keys() != wanted:
            raise TypeError(f"{type(self).__name__}: expected the tensors {sorted(wanted)}, got {sorted(tensors)}")
        for name, tensor in tensors.items():
            # Copied, so that all are aligned in memory as PyTorch does it. Matrix products round differently for other
            # addresses, as with arrays and with files that are mapped into memory.
            self.register_buffer(name, tensor.clone())

    @property
    @abc.abstractmethod
    def n_classes(self) -> int:
        """The number of classes K."""

    @property
    def attention_layers(self) -> int:
        """The number of layers of attention. With any, the regions of a call must be all of one image."""
        return 0

    @abc.abstractmethod
    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        """Standardised features (N, D) and geometry (N, G) -> scores (N, K) in [0, 1]. N = 0 gives (0, K)."""

    def forward(
        self, features: Tensor, geometry: Tensor, ignored: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Features (N, D) and geometry (N, G), float32 -> scores (N, K + 1), deltas (N, K, 4) or None.

        Column 0, the background, is 1 minus the best class score. ignored: (N,) bool, regions that the others do not
        attend to; only a head with attention uses it, which can then be traced.
        """
        del ignored
        x = (features - self.mean) * self.scale
        return self.with_background(self.class_scores(x, geometry)), self.deltas(x, geometry)

    def with_background(self, scores: Tensor) -> Tensor:
        """Scores of the classes (N, K) -> (N, K + 1)."""
        best = scores.amax(dim=1, keepdim=True) if self.n_classes else scores.new_zeros(len(scores), 1)
        return torch.cat([1 - best, scores], dim=1)

    def deltas(self, x: Tensor, geometry: Tensor) -> Tensor | None:
        """(N, D), (N, G) -> (N, K, 4), with a separate product for each class; None without box regression."""
        del geometry
        if not len(self.box_weight):
            return None
        pairs = zip(self.box_weight, self.box_bias, strict=True)
        return torch.stack([x @ weight + bias for weight, bias in pairs], dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """The buffers by name: the constructor's arguments for an equal head."""
        return dict(self.named_buffers())


def scores_by_class(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """features . weight_k + bias_k for each class: (N, D), (K, D), (K,) -> (N, K).

    There is one product per class, because in a matrix product the order of summation may depend on K.
    """
    columns = [torch.mv(features, one) + offset for one, offset in zip(weight, bias, strict=True)]
    return torch.stack(columns, dim=1) if columns else features.new_zeros(len(features), 0)


def sigmoid_by_class(margins: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """sigmoid(slope_k margin_k + offset_k) for each class: (N, K), (K,), (K,) -> (N, K).

    It is computed column by column. Vectorised code rounds the last elements of a row differently, so the result of a
    class would depend on its position.
    """
    columns = [
        torch.sigmoid(one.contiguous() * a + b) for one, a, b in zip(margins.unbind(dim=1), slope, offset, strict=True)
    ]
    return torch.stack(columns, dim=1) if columns else margins


@dataclass(kw_only=True)
class StoredHeadConfig(RegionHeadConfig, abc.ABC):
    """Settings and training of a head on stored features; the base class of one dataclass per kind of head."""

    MODULE: ClassVar[type[FeatureHead]]
    """The module that is trained. Its constructor takes its buffers, so a saved head can be loaded."""
    TORCHRUN: ClassVar[bool] = False
    STORED_FEATURES: ClassVar[bool] = True
    JOINT: ClassVar[bool] = False
    """Whether box_regression=joint is supported."""
    NEEDS_EACH: ClassVar[bool] = True
    TOGETHER: ClassVar[bool] = False
    """Whether classes compete, so that all are trained again if a class is added or removed."""
    USES_BF16: ClassVar[bool] = False
    """Whether `bf16` has an effect in training. Other heads ignore it."""

    @property
    def attention_layers(self) -> int:
        """The number of layers of attention; see `FeatureHead.attention_layers`."""
        return 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_regression is BoxRegression.joint and not self.JOINT:
            raise ValueError("head.box_regression: expected ridge or none for a head on stored features, got joint")

    def train(self, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """Train a head for all classes of the examples.

        bf16: train in bf16 on the CPU, if `USES_BF16`. Raises ValueError for a class without regions (`NEEDS_EACH`), or
        if no class has any.
        """
        mean, scale = standardisation(examples.features)
        return self.fit(standardised(examples, mean, scale), self._shared(mean, scale), seed=seed, bf16=bf16)

    def check_class(self, head: FeatureHead, name: str) -> None:
        """Raise ValueError or FileNotFoundError if a class of this name can't be added, whatever its regions."""

    def add_class(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """The head with one more class: the last class of the examples."""
        seen = standardised(examples, head.mean.numpy(), head.scale.numpy())
        return self.extend(head, seen, seed=seed, bf16=bf16)

    def remove_class(
        self, head: FeatureHead, label: int, examples: Examples, *, seed: int, bf16: bool = False
    ) -> FeatureHead:
        """The head without class `label`, 1..K. examples: of the remaining classes."""
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
        """Train on standardised features. shared: the buffers "mean" and "scale" of the head."""

    @abc.abstractmethod
    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """The head with the last class of the examples, standardised by mean and scale of the head."""

    def _shared(self, mean: Float32Array, scale: Float32Array) -> dict[str, Tensor]:
        return {"mean": torch.from_numpy(mean), "scale": torch.from_numpy(scale)}

    def box_tensors(self, examples: Examples, labels: list[int]) -> dict[str, Tensor]:
        """The box regression of these classes as box_weight and box_bias (see FeatureHead); no rows without ridge."""
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
        """Weights (D, 4) and bias (4,) of a class; zeros if no region overlaps an object by more than ridge_iou."""
        rows = np.flatnonzero((examples.labels == label) & (examples.ious > self.ridge_iou))
        if not len(rows):
            return np.zeros((width, 4)), np.zeros(4)
        return ridge_regression(examples.features[rows], examples.deltas[rows], self.ridge)


@dataclass(kw_only=True)
class CompetingHeadConfig(StoredHeadConfig):
    """Settings of a head whose classes compete: if a class is added or removed, all classes are trained again."""

    TOGETHER: ClassVar[bool] = True

    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """Train all classes again, so that scores are calibrated with the new one."""
        return self.fit(examples, {"mean": head.mean, "scale": head.scale}, seed=seed, bf16=bf16)

    def remove_class(
        self, head: FeatureHead, label: int, examples: Examples, *, seed: int, bf16: bool = False
    ) -> FeatureHead:
        """Train the remaining classes again."""
        del label
        return self.add_class(head, examples, seed=seed, bf16=bf16)


def joined(head: Head, other: Head) -> Head:
    """A head with the classes of the first and then the second head, and the shared buffers of the first."""
    theirs = other.tensors()
    tensors = {
        name: tensor if name in head.SHARED else torch.cat([tensor, theirs[name]])
        for name, tensor in head.tensors().items()
    }
    return type(head)(**tensors)


def standardisation(features: Float32Array) -> tuple[Float32Array, Float32Array]:
    """(mean, scale), (D,) each, so that (x - mean) scale has variance 1. scale is bounded for constant features."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    floor = max(1e-3 * float(deviation.mean()), 1e-6)
    return mean, (1 / np.maximum(deviation, floor)).astype(np.float32)


def standardised(examples: Examples, mean: Float32Array, scale: Float32Array) -> Examples:
    """The examples with standardised features, (x - mean) scale."""
    features = torch.from_numpy(examples.features) - torch.from_numpy(mean)  # torch uses all cores
    features *= torch.from_numpy(scale)
    return replace(examples, features=features.numpy())


def any_overlap(examples: Examples, at_least: float) -> BoolArray:
    """(N,) bool: whether a region has IoU >= at_least with an object of any class."""
    return np.asarray((examples.class_ious >= at_least).any(axis=1), dtype=np.bool_)
