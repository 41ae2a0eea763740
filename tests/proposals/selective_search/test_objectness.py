"""Objectness: the sum of bins by hand, and the weights of the package."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detpipe.proposals.selective_search.candidates import FEATURES
from detpipe.proposals.selective_search.objectness import ObjectnessWeights, objectness, shipped_weights
from tests.proposals.pictures import digits

LARGEST = np.iinfo(np.int32).max


def test_bins_by_hand():
    weights = ObjectnessWeights(
        np.array([[10, 20], [5, LARGEST]], np.int32), np.array([[1, 20, 300], [-4000, 5000, 7]], np.int32)
    )
    features = np.array([[9, 4], [10, 5], [19, LARGEST - 1], [20, -3], [-1, 5]], np.int32)
    assert objectness(features, weights).tolist() == [1 - 4000, 20 + 5000, 20 + 5000, 300 - 4000, 1 + 5000]
    assert objectness(np.zeros((0, 2), np.int32), weights).shape == (0,)


def test_from_json_fills_up_shorter_features():
    content = {name: {"thresholds": [3], "weights": [0, 1]} for name in FEATURES}
    content["area"] = {"thresholds": [1, 2], "weights": [7, 8, 9]}
    weights = ObjectnessWeights.from_json(json.dumps(content))
    place = list(FEATURES).index("area")
    assert weights.thresholds[place].tolist() == [1, 2]
    assert weights.weights[place].tolist() == [7, 8, 9]
    assert weights.thresholds[0].tolist() == [3, LARGEST]
    assert weights.weights[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("content", [{}, {"area": {"thresholds": [], "weights": [0]}}])
def test_weights_of_other_features_are_named(content: dict):
    with pytest.raises(ValueError, match="expected the weights of occurrences, place"):
        ObjectnessWeights.from_json(json.dumps(content))


def test_shipped_weights_fit_the_features():
    weights = shipped_weights()
    assert weights is shipped_weights()
    assert weights.thresholds.shape == (len(FEATURES), weights.weights.shape[1] - 1)
    assert (np.diff(weights.thresholds.astype(np.int64), axis=1) >= 0).all()
    # The sum of the largest of each must not wrap around.
    assert np.abs(weights.weights.astype(np.int64)).max(axis=1).sum() < LARGEST


def test_shipped_weights_as_numpy_sums_them():
    weights = shipped_weights()
    features = digits(50 * len(FEATURES), 256, 3).astype(np.int32).reshape(50, -1) * 37
    wanted = [
        sum(
            int(weights.weights[j, np.searchsorted(weights.thresholds[j], value, "right")])
            for j, value in enumerate(row)
        )
        for row in features
    ]
    assert objectness(features).tolist() == wanted
