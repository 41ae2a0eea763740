"""Prototypes: a class is the mean direction of its examples (Snell et al. 2017), against those of the background.

For few examples: there is nothing to fit but the mean, and how its similarity becomes a probability.

N: regions, D: feature width, K: classes, B: prototypes of the background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.feature_head import Examples, FeatureHead, StoredHead, any_overlap, scores_by_class
from detpipe.heads.platt import platt
from detpipe.structures import Float32Array


class PrototypeHead(FeatureHead):
    """sigmoid(slope_k (cos(x - centre, prototype_k) - max_b cos(x - centre, background_b)) + offset_k).

    prototypes: (K, D) and background: (B, D), of norm 1. centre: (D,). slope, offset: (K,).
    """

    prototypes: Tensor
    slope: Tensor
    offset: Tensor
    background: Tensor
    centre: Tensor

    def __init__(
        self,
        *,
        prototypes: Tensor,
        slope: Tensor,
        offset: Tensor,
        background: Tensor,
        centre: Tensor,
        box_weight: Tensor,
        box_bias: Tensor,
    ) -> None:
        super().__init__(box_weight=box_weight, box_bias=box_bias)
        own = {"prototypes": prototypes, "slope": slope, "offset": offset, "background": background, "centre": centre}
        for name, tensor in own.items():
            self.register_buffer(name, tensor)

    @property
    def n_classes(self) -> int:
        return len(self.slope)

    def class_scores(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.margins(features) * self.slope + self.offset)

    def margins(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K): by how much a class is nearer than the background, as cosines."""
        x = torch.nn.functional.normalize(features - self.centre, dim=1)
        own = scores_by_class(x, self.prototypes, torch.zeros(self.n_classes))
        if not len(self.background):
            return own
        return own - (x @ self.background.T).amax(dim=1, keepdim=True)


@dataclass(kw_only=True)
class PrototypesHead(StoredHead):
    """A mean for each class, a few for the background."""

    background: int = 16
    """Prototypes of the background, by k-means."""
    negative_iou: float = 0.3
    """Regions that overlap each object of the class by less are its negatives; of every class, background."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background < 0 or not 0 < self.negative_iou <= 1:
            raise ValueError("head: wanted background from 0 and negative_iou in (0, 1]")

    def train(self, examples: Examples, *, seed: int) -> PrototypeHead:
        """Centre and background are of all examples; each class is added to them by itself."""
        centre = examples.features.mean(axis=0)
        outside = ~any_overlap(examples, self.negative_iou)
        background = k_means(directions(examples.features[outside], centre), self.background, seed)
        width = examples.features.shape[1]
        head = PrototypeHead(
            prototypes=torch.zeros(0, width),
            slope=torch.zeros(0),
            offset=torch.zeros(0),
            background=torch.from_numpy(background),
            centre=torch.from_numpy(centre),
            box_weight=torch.zeros(0, width, 4),
            box_bias=torch.zeros(0, 4),
        )
        for label in range(1, len(examples.classes) + 1):
            head = self._with_class(head, examples, label)
        return head

    def add_class(self, head: FeatureHead, examples: Examples, *, seed: int) -> PrototypeHead:
        """The last class beside the others; centre and background stay as they were."""
        del seed
        assert isinstance(head, PrototypeHead)
        return self._with_class(head, examples, len(examples.classes))

    def _with_class(self, head: PrototypeHead, examples: Examples, label: int) -> PrototypeHead:
        positive, negative = examples.positives(label), examples.negatives(label, self.negative_iou)
        mean = directions(examples.features[positive], head.centre.numpy()).mean(axis=0)
        prototype = torch.from_numpy(mean / max(float(np.linalg.norm(mean)), 1e-12))[None]
        one = PrototypeHead(
            prototypes=prototype,
            slope=torch.ones(1),
            offset=torch.zeros(1),
            background=head.background,
            centre=head.centre,
            **self.box_tensors(examples, [label]),
        )
        rows = np.concatenate([positive, negative])
        margins = one.margins(torch.from_numpy(examples.features[rows]))[:, 0].numpy()
        slope, offset = platt(margins, np.arange(len(rows)) < len(positive))
        tensors = {**one.tensors(), "slope": torch.tensor([slope]), "offset": torch.tensor([offset])}
        shared = ("background", "centre")
        return PrototypeHead(
            **{
                name: tensor if name in shared else torch.cat([tensor, tensors[name]])
                for name, tensor in head.tensors().items()
            }
        )


def directions(features: Float32Array, centre: Float32Array) -> Float32Array:
    """(N, D) -> (N, D) of norm 1, seen from the centre; a feature that is the centre stays 0."""
    moved = features - centre
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def k_means(points: Float32Array, count: int, seed: int, *, passes: int = 20) -> Float32Array:
    """Centres of norm 1 of points of norm 1 (spherical k-means): (N, D) -> (min(count, N), D). N = 0 gives none."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(points), min(count, len(points)), replace=False) if len(points) else []
    centres = points[np.sort(np.asarray(chosen, dtype=np.int64))]
    for _ in range(passes if len(centres) else 0):
        nearest = (points @ centres.T).argmax(axis=1)
        sums = np.stack([points[nearest == one].sum(axis=0) for one in range(len(centres))])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        moved = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres).astype(np.float32)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
