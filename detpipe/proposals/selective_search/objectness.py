"""The objectness score that ranks the boxes of a selective search.

Thresholds put each feature of a box (candidates.py) into a bin, and the weights of the bins are added. This is a
generalised additive model with integer weights (Hastie and Tibshirani, Statistical Science 1986), fitted by logistic
regression (tools/fit_objectness.py). Integers make the order the same on every machine.

U: boxes. F: features. B: the largest number of bins of a feature.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from detpipe.jit import compiled
from detpipe.proposals.selective_search.candidates import FEATURES
from detpipe.proposals.selective_search.felzenszwalb import Int32Array


@dataclass(frozen=True, eq=False)
class ObjectnessWeights:
    """The fitted weights.

    thresholds: (F, B - 1) int32, increasing; the bin of a value is the number of thresholds that it reaches. Rows are
    padded with the largest int32. weights: (F, B) int32, in 1/1000 of a logit.
    """

    thresholds: Int32Array
    weights: Int32Array

    @classmethod
    def from_json(cls, text: str) -> ObjectnessWeights:
        """From {feature: {"thresholds": [...], "weights": [...]}}. Raises ValueError for other features."""
        content = json.loads(text)
        if list(content) != list(FEATURES):
            raise ValueError(f"expected the weights of {', '.join(FEATURES)}, got {', '.join(content)}")
        widest = max(len(one["weights"]) for one in content.values())
        thresholds = np.full((len(FEATURES), widest - 1), np.iinfo(np.int32).max, dtype=np.int32)
        weights = np.zeros((len(FEATURES), widest), dtype=np.int32)
        for row, one in enumerate(content.values()):
            thresholds[row, : len(one["thresholds"])] = one["thresholds"]
            weights[row, : len(one["weights"])] = one["weights"]
        return cls(thresholds, weights)


@cache
def shipped_weights() -> ObjectnessWeights:
    """The weights that come with the package, from objectness.json."""
    own = files("detpipe.proposals.selective_search").joinpath("objectness.json")
    return ObjectnessWeights.from_json(own.read_text("utf-8"))


def objectness(features: Int32Array, weights: ObjectnessWeights | None = None) -> Int32Array:
    """Scores (U,) int32 of boxes with features (U, F) int32, higher is better. weights: default, the shipped ones."""
    weights = weights or shipped_weights()
    return _score(features, weights.thresholds, weights.weights)


@compiled
def _score(features: Int32Array, thresholds: Int32Array, weights: Int32Array) -> Int32Array:
    count, n_features = features.shape
    scores = np.zeros(count, np.int32)
    values, bins = np.empty(count, np.int32), np.empty(count, np.int32)
    for j in range(n_features):
        for u in range(count):
            values[u] = features[u, j]
        bins[:] = 0
        for edge in thresholds[j]:
            for u in range(count):
                bins[u] += values[u] >= edge
        for u in range(count):
            scores[u] += weights[j, bins[u]]
    return scores
