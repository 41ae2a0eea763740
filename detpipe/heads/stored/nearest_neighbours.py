"""k nearest neighbours: a region is classified by the stored regions with the most similar features.

N: number of regions. D: feature width. K: number of classes. M: number of stored regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.stored.feature_head import CompetingHeadConfig, Examples, FeatureHead, any_overlap
from detpipe.heads.stored.prototypes import directions


class NearestNeighboursHead(FeatureHead):
    """The share of each class among the k nearest neighbours, weighted by exp(cosine similarity / temperature).

    memory: (M, D) float16, with norm 1. labels: (M,) int64, 0 is background. k: () int64. temperature: () float32.
    classes: () int64, the number of classes K.
    """

    memory: Tensor
    labels: Tensor
    k: Tensor
    temperature: Tensor
    classes: Tensor

    @property
    def n_classes(self) -> int:
        return int(self.classes)

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        del geometry
        x = torch.nn.functional.normalize(x, dim=1)
        nearest = (x @ self.memory.float().T).topk(min(int(self.k), len(self.memory)), dim=1)
        weights = (nearest.values / self.temperature).softmax(dim=1)
        shares = x.new_zeros(len(x), self.n_classes + 1)
        # Rounding can give a sum slightly above 1.
        return shares.scatter_add_(1, self.labels[nearest.indices], weights)[:, 1:].clamp(max=1)


@dataclass(kw_only=True)
class NearestNeighboursConfig(CompetingHeadConfig):
    """k nearest neighbours. Training only stores regions and fits the box regression."""

    MODULE: ClassVar[type[FeatureHead]] = NearestNeighboursHead

    k: int = 20
    """Number of nearest neighbours."""
    temperature: float = 0.05
    """Temperature of the neighbours' weights, exp(cosine similarity / temperature). Smaller = only the very nearest
    neighbours count."""
    memory: int = 20_000
    """Largest number of stored regions. Object regions are stored first, then background."""
    background_iou: float = 0.5
    """Regions whose IoU with every object is below this are background."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or self.memory < self.k or not self.temperature > 0 or not 0 < self.background_iou <= 1:
            raise ValueError(
                "head: expected k >= 1, memory >= k, temperature above 0 and background_iou in (0, 1], got "
                f"{self.k}, {self.memory}, {self.temperature}, {self.background_iou}"
            )

    def fit(
        self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False
    ) -> NearestNeighboursHead:
        """Store the regions. If there are too many, random ones are left out, background first."""
        del bf16
        classes = list(range(1, len(examples.classes) + 1))
        for label in classes:
            examples.positives(label)  # raises ValueError if there are none
        generator = np.random.default_rng(seed)
        objects = generator.permutation(np.flatnonzero(examples.labels > 0))[: self.memory]
        outside = np.flatnonzero((examples.labels == 0) & ~any_overlap(examples, self.background_iou))
        rows = np.sort(np.concatenate([objects, generator.permutation(outside)[: self.memory - len(objects)]]))
        return NearestNeighboursHead(
            memory=torch.from_numpy(directions(examples.features[rows]).astype(np.float16)),
            labels=torch.from_numpy(examples.labels[rows]),
            k=torch.tensor(self.k),
            temperature=torch.tensor(self.temperature),
            classes=torch.tensor(len(classes)),
            **shared,
            **self.box_tensors(examples, classes),
        )
