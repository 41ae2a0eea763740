"""k nearest neighbours: a region is what the stored regions are that look most like it.

N: regions, D: feature width, K: classes, M: regions that are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.stored.feature_head import Examples, FeatureHead, StoredHeadConfig, any_overlap, standardised
from detpipe.heads.stored.prototypes import directions


class NearestNeighboursHead(FeatureHead):
    """The share of each class among the k nearest, each weighed by exp(cosine / temperature).

    memory: (M, D) float16, of norm 1. labels: (M,) int64, 0 background. k: () int64,
    temperature: () float32, classes: () int64, K.
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
        return shares.scatter_add_(1, self.labels[nearest.indices], weights)[:, 1:].clamp(max=1)  # of rounding


@dataclass(kw_only=True)
class NearestNeighboursConfig(StoredHeadConfig):
    """Nothing is fitted but the boxes. With a class added, its regions are remembered, too."""

    MODULE: ClassVar[type[FeatureHead]] = NearestNeighboursHead

    TOGETHER: ClassVar[bool] = True
    k: int = 20
    """Neighbours that are asked."""
    temperature: float = 0.05
    """How much more the nearest of them counts: a cosine less by this weighs e times less."""
    memory: int = 20_000
    """Regions that are remembered at most: those of objects first, then background."""
    background_iou: float = 0.5
    """Regions that overlap each object by less are background."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or self.memory < self.k or not self.temperature > 0 or not 0 < self.background_iou <= 1:
            raise ValueError("head: expected k from 1, memory from k, temperature above 0, background_iou in (0, 1]")

    def fit(
        self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False
    ) -> NearestNeighboursHead:
        """Remember the regions; those that don't fit in are left out at random, background first."""
        del bf16
        classes = list(range(1, len(examples.classes) + 1))
        for label in classes:
            examples.positives(label)  # raises where there are none
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

    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> NearestNeighboursHead:
        """What the store holds now is remembered."""
        return self.fit(examples, {"mean": head.mean, "scale": head.scale}, seed=seed, bf16=bf16)

    def remove_class(
        self, head: FeatureHead, label: int, examples: Examples, *, seed: int, bf16: bool = False
    ) -> FeatureHead:
        """Its regions are forgotten, or background."""
        del label
        return self.extend(head, standardised(examples, head.mean.numpy(), head.scale.numpy()), seed=seed, bf16=bf16)
