"""Prototypes: a class is represented by the mean feature direction of its examples (Snell et al. 2017).

Suitable for few examples, because only the mean and the Platt scaling are fitted. The similarity to a class is compared
with the similarity to the nearest background prototype.

N: number of regions. D: feature width. K: number of classes. B: number of background prototypes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.stored.feature_head import (
    Examples,
    FeatureHead,
    StoredHeadConfig,
    any_overlap,
    joined,
    scores_by_class,
    sigmoid_by_class,
)
from detpipe.heads.stored.platt import platt
from detpipe.structures import Float32Array


class PrototypesHead(FeatureHead):
    """sigmoid(slope_k (cos(x, prototype_k) - max_b cos(x, background_b)) + offset_k).

    prototypes: (K, D) and background: (B, D), with norm 1. slope, offset: (K,).
    """

    prototypes: Tensor
    slope: Tensor
    offset: Tensor
    background: Tensor
    SHARED = ("mean", "scale", "background")

    @property
    def n_classes(self) -> int:
        return len(self.slope)

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        del geometry
        return sigmoid_by_class(self.margins(x), self.slope, self.offset)

    def margins(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, K): cosine similarity to the class minus the largest one to a background prototype."""
        x = torch.nn.functional.normalize(x, dim=1)
        own = scores_by_class(x, self.prototypes, torch.zeros(self.n_classes))
        if not len(self.background):
            return own
        return own - (x @ self.background.T).amax(dim=1, keepdim=True)


@dataclass(kw_only=True)
class PrototypesConfig(StoredHeadConfig):
    """One prototype for each class and several for the background."""

    MODULE: ClassVar[type[FeatureHead]] = PrototypesHead

    background: int = 16
    """Number of background prototypes, found by k-means. 0: none."""
    negative_iou: float = 0.3
    """Regions whose IoU with every object of the class is below this are its negatives. Regions below it for all
    classes are background."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background < 0 or not 0 < self.negative_iou <= 1:
            raise ValueError(
                f"head: expected background >= 0 and negative_iou in (0, 1], got {self.background}, {self.negative_iou}"
            )

    def fit(self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False) -> FeatureHead:
        """Find the background prototypes from all examples, then fit each class separately."""
        del bf16
        outside = ~any_overlap(examples, self.negative_iou)
        background = k_means(directions(examples.features[outside]), self.background, seed)
        shared = {**shared, "background": torch.from_numpy(background)}
        heads = [self._of_class(shared, examples, label) for label in range(1, len(examples.classes) + 1)]
        return functools.reduce(joined, heads)

    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """Add the last class; the other classes and the background do not change."""
        del seed, bf16
        shared = {name: tensor for name, tensor in head.tensors().items() if name in head.SHARED}
        return joined(head, self._of_class(shared, examples, len(examples.classes)))

    def _of_class(self, shared: dict[str, Tensor], examples: Examples, label: int) -> FeatureHead:
        positive, negative = examples.positives(label), examples.negatives(label, self.negative_iou)
        mean = directions(examples.features[positive]).mean(axis=0)
        tensors = {
            "prototypes": torch.from_numpy(mean / max(float(np.linalg.norm(mean)), 1e-12))[None],
            "slope": torch.ones(1),
            "offset": torch.zeros(1),
            **shared,
            **self.box_tensors(examples, [label]),
        }
        rows = np.concatenate([positive, negative])
        margins = PrototypesHead(**tensors).margins(torch.from_numpy(examples.features[rows]))[:, 0].numpy()
        slope, offset = platt(margins, np.arange(len(rows)) < len(positive))
        return PrototypesHead(**{**tensors, "slope": torch.tensor([slope]), "offset": torch.tensor([offset])})


def directions(features: Float32Array) -> Float32Array:
    """Scale features (N, D) to norm 1; a feature vector of zeros stays 0."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def k_means(points: Float32Array, count: int, seed: int, *, passes: int = 20) -> Float32Array:
    """Spherical k-means of points (N, D) with norm 1 -> centres (min(count, N), D) with norm 1. N = 0 gives (0, D)."""
    generator = np.random.default_rng(seed)
    centres = points[np.sort(generator.permutation(len(points))[:count])]
    for _ in range(passes if len(centres) else 0):
        nearest = (points @ centres.T).argmax(axis=1)
        sums = np.stack([points[nearest == one].sum(axis=0) for one in range(len(centres))])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        moved = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres).astype(np.float32)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
