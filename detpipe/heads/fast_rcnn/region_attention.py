"""Attention among the regions of one image: the features of each region are changed by the features of the others.

A layer is a block of multi-head attention and two fully connected layers, each a residual branch (Vaswani et al. 2017).
A bias from the geometry of each pair of boxes is added to the attention's logits, as in Relation Networks (Hu et al.
2018, "Relation networks for object detection", section 3.2) and Relation-DETR (Hou et al. 2024).

R: regions. D: width of their features. L: layers. H: heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detpipe.heads.fast_rcnn.linear import linear_layer, zero_layer

GEOMETRY_WIDTH = 16
"""Width of the hidden layer between the geometry of a pair and the bias of each head."""

LEAST_DISTANCE = 1e-3
"""Smallest distance of two centres, as a share of the box's side (Hu et al. 2018)."""

QUERIES_AT_ONCE = 512
"""Number of regions whose attention to all regions is computed together. It bounds the memory."""

IGNORED = -1e4
"""Logit of a region that others must not attend to. Its weight is exactly 0 if there is any other region."""


class RegionAttention(nn.Module):
    """L layers of attention. The last layer of each branch starts at 0, so the features do not change at first.

    feature_width: D. width: of queries, keys and values, a multiple of `heads`. hidden: between the two fully connected
    layers. Weights are drawn from `generator`.
    """

    def __init__(
        self, feature_width: int, *, layers: int, heads: int, width: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(
            AttentionLayer(feature_width, heads=heads, width=width, hidden=hidden, generator=generator)
            for _ in range(layers)
        )

    def forward(self, features: Tensor, boxes: Tensor, sets: Tensor) -> Tensor:
        """Features (R, D) of boxes (R, 4) in pixels of the input -> (R, D).

        sets: (R,) numbers. Regions attend only to regions with the same number, of their image. R = 0 gives (0, D).
        """
        order = sets.argsort(stable=True)
        counts = torch.unique_consecutive(sets[order], return_counts=True)[1].tolist() or [0]
        parts = [
            self._attended(own, places)
            for own, places in zip(features[order].split(counts), boxes[order].split(counts), strict=True)
        ]
        return torch.cat(parts)[order.argsort()]

    def _attended(self, features: Tensor, boxes: Tensor) -> Tensor:
        for layer in self.layers:
            features = layer(features, boxes)
        return features

    def at_once(self, features: Tensor, boxes: Tensor, ignored: Tensor) -> Tensor:
        """The regions of one image: (R, D), (R, 4) -> (R, D), without parts and branches, so that it can be traced.

        ignored: (R,) bool, regions that the others do not attend to.
        """
        for layer in self.layers:
            assert isinstance(layer, AttentionLayer)
            features = layer.at_once(features, boxes, ignored)
        return features

    def weights(self, features: Tensor, boxes: Tensor) -> Tensor:
        """How much each region of one image attends to each: (R, D), (R, 4) -> (L, H, R, R). Rows sum to 1."""
        found = []
        for layer in self.layers:
            assert isinstance(layer, AttentionLayer)
            found.append(layer.weights(features, boxes))
            features = layer(features, boxes)
        return torch.stack(found)


class AttentionLayer(nn.Module):
    """One layer: attention among all given regions, then two fully connected layers. See `RegionAttention`."""

    def __init__(self, feature_width: int, *, heads: int, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(feature_width)
        self.query = linear_layer(feature_width, width, generator, 1.0)
        self.key = linear_layer(feature_width, width, generator, 1.0)
        self.value = linear_layer(feature_width, width, generator, 1.0)
        self.geometry = nn.Sequential(
            linear_layer(4, GEOMETRY_WIDTH, generator), nn.ReLU(), linear_layer(GEOMETRY_WIDTH, heads, generator, 1 / 3)
        )
        self.joined = zero_layer(width, feature_width)
        self.hidden_norm = nn.LayerNorm(feature_width)
        self.hidden = linear_layer(feature_width, hidden, generator)
        self.output = zero_layer(hidden, feature_width)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """(R, D), (R, 4) -> (R, D). R may be 0."""
        query, key, value = self._queries_keys_values(features)
        rows = [
            self._logits(part, key, places, boxes).softmax(dim=2) @ value
            for part, places in zip(query.split(QUERIES_AT_ONCE, 1), boxes.split(QUERIES_AT_ONCE), strict=True)
        ]
        return self._changed(features, torch.cat(rows, dim=1))

    def at_once(self, features: Tensor, boxes: Tensor, ignored: Tensor) -> Tensor:
        """See `RegionAttention.at_once`."""
        query, key, value = self._queries_keys_values(features)
        logits = self._logits(query, key, boxes, boxes).masked_fill(ignored, IGNORED)
        return self._changed(features, logits.softmax(dim=2) @ value)

    def weights(self, features: Tensor, boxes: Tensor) -> Tensor:
        """The attention of each region to each: (R, D), (R, 4) -> (H, R, R). Rows sum to 1."""
        query, key, _ = self._queries_keys_values(features)
        return self._logits(query, key, boxes, boxes).softmax(dim=2)

    def _queries_keys_values(self, features: Tensor) -> list[Tensor]:
        """(R, D) -> three tensors (H, R, width / H)."""
        normed = self.norm(features)
        made = (layer(normed) for layer in (self.query, self.key, self.value))
        return [one.unflatten(1, (self.heads, -1)).transpose(0, 1) for one in made]

    def _changed(self, features: Tensor, attended: Tensor) -> Tensor:
        """Both residual branches: features (R, D), attended values (H, R, width / H) -> (R, D)."""
        features = features + self.joined(attended.transpose(0, 1).flatten(1))
        changed: Tensor = features + self.output(F.relu(self.hidden(self.hidden_norm(features))))
        return changed

    def _logits(self, query: Tensor, key: Tensor, boxes: Tensor, others: Tensor) -> Tensor:
        """Queries (H, Q, d) of boxes (Q, 4), keys (H, R, d) of boxes (R, 4) -> (H, Q, R) float32."""
        bias = self.geometry(relative_geometry(boxes, others)).permute(2, 0, 1)
        logits: Tensor = query @ key.transpose(1, 2) / query.shape[2] ** 0.5 + bias
        return logits.float()


def relative_geometry(boxes: Tensor, others: Tensor) -> Tensor:
    """(Q, 4), (R, 4) -> (Q, R, 4): log(|dx| / w), log(|dy| / h), log(w' / w), log(h' / h) (Hu et al. 2018, eq. 5).

    w and h are the sides of the first box. Sides count as at least one pixel, so that boxes may be empty.
    """
    sides, other_sides = ((one[:, 2:] - one[:, :2]).clamp(min=1) for one in (boxes, others))
    centres, other_centres = ((one[:, :2] + one[:, 2:]) / 2 for one in (boxes, others))
    distance = (centres[:, None] - other_centres).abs() / sides[:, None]
    return torch.cat([distance.clamp(min=LEAST_DISTANCE), other_sides / sides[:, None]], dim=2).log()
