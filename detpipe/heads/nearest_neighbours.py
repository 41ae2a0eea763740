"""k nearest neighbours: a region is what the stored regions are that look most like it.

N: regions, D: feature width, K: classes, M: regions that are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.feature_head import Examples, FeatureHead, StoredHead, any_overlap
from detpipe.heads.prototypes import directions


class NeighboursHead(FeatureHead):
    """The share of each class among the k nearest, each weighed by exp(cosine / temperature).

    memory: (M, D) float16, of norm 1, seen from the centre (D,). labels: (M,) int64, 0 background. k: () int64,
    temperature: () float32, classes: () int64, K.
    """

    memory: Tensor
    labels: Tensor
    centre: Tensor
    k: Tensor
    temperature: Tensor
    classes: Tensor

    def __init__(
        self,
        *,
        memory: Tensor,
        labels: Tensor,
        centre: Tensor,
        k: Tensor,
        temperature: Tensor,
        classes: Tensor,
        box_weight: Tensor,
        box_bias: Tensor,
    ) -> None:
        super().__init__(box_weight=box_weight, box_bias=box_bias)
        own = {"memory": memory, "labels": labels, "centre": centre, "k": k, "temperature": temperature}
        for name, tensor in {**own, "classes": classes}.items():
            self.register_buffer(name, tensor)

    @property
    def n_classes(self) -> int:
        return int(self.classes)

    def class_scores(self, features: Tensor) -> Tensor:
        x = torch.nn.functional.normalize(features - self.centre, dim=1)
        nearest = (x @ self.memory.float().T).topk(min(int(self.k), len(self.memory)), dim=1)
        weights = (nearest.values / self.temperature).softmax(dim=1)
        shares = x.new_zeros(len(x), self.n_classes + 1)
        return shares.scatter_add_(1, self.labels[nearest.indices], weights)[:, 1:]


@dataclass(kw_only=True)
class NearestNeighboursHead(StoredHead):
    """Nothing is fitted but the boxes. With a class added, its regions are remembered, too."""

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
            raise ValueError("head: wanted k from 1, memory from k, temperature above 0, background_iou in (0, 1]")

    def train(self, examples: Examples, *, seed: int) -> NeighboursHead:
        """Remember the regions; those that don't fit in are left out at random, background first."""
        classes = list(range(1, len(examples.classes) + 1))
        for label in classes:
            examples.positives(label)  # raises where there are none
        generator = np.random.default_rng(seed)
        objects = generator.permutation(np.flatnonzero(examples.labels > 0))[: self.memory]
        outside = np.flatnonzero((examples.labels == 0) & ~any_overlap(examples, self.background_iou))
        rows = np.sort(np.concatenate([objects, generator.permutation(outside)[: self.memory - len(objects)]]))
        centre = examples.features.mean(axis=0)
        return NeighboursHead(
            memory=torch.from_numpy(directions(examples.features[rows], centre).astype(np.float16)),
            labels=torch.from_numpy(examples.labels[rows]),
            centre=torch.from_numpy(centre),
            k=torch.tensor(self.k),
            temperature=torch.tensor(self.temperature),
            classes=torch.tensor(len(classes)),
            **self.box_tensors(examples, classes),
        )
