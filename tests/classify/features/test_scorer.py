"""A head on stored features at work, and its second look at likely regions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from detpipe.classify.detect import ScoredRegions
from detpipe.classify.features.geometry import COLUMNS
from detpipe.classify.features.network import FeatureClassifier
from detpipe.classify.features.scorer import FeatureScorer, score_features
from detpipe.classify.features.settings import FeatureConfig
from detpipe.heads.stored.feature_head import FeatureHead
from detpipe.structures import Float32Array, Image
from tests.classify.tiny import TinyBackbone

IMAGE = np.zeros((100, 200, 3), dtype=np.uint8)
BOXES = np.float32([[0, 0, 20, 20], [100, 0, 140, 40], [50, 50, 60, 90]])


class WidthsHead(FeatureHead):
    """A class of wide regions and one of tall ones: the score is the side over 100; each region moves a width right."""

    @property
    def n_classes(self) -> int:
        return 2

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        return x[:, 2:4] - x[:, :2]

    def deltas(self, x: Tensor, geometry: Tensor) -> Tensor | None:
        return torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]).expand(len(x), 2, 4)


class Boxes:
    """Features that are a region's corners, in hundreds of pixels. seen: the regions that were asked for, by image."""

    def __init__(self, config: FeatureConfig) -> None:
        self.config, self.seen = config, []

    def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
        for _, boxes in images:
            self.seen.append(boxes)
            yield np.tile(boxes / np.float32(100), len(self.config.views))


def widths_head() -> WidthsHead:
    return WidthsHead(
        mean=torch.zeros(4), scale=torch.ones(4), box_weight=torch.zeros(2, 4, 4), box_bias=torch.zeros(2, 4)
    )


def scorer(refine: int, *, mirrored: bool = False) -> tuple[FeatureScorer, Boxes]:
    extractor = Boxes(FeatureConfig(mirrored=mirrored))
    network = FeatureClassifier(TinyBackbone(), widths_head())
    return FeatureScorer(network, extractor, refine=refine), extractor  # type: ignore[arg-type]


def test_scores_by_hand() -> None:
    at_work, extractor = scorer(0)
    found = list(at_work.score([(IMAGE, BOXES), (IMAGE, BOXES[:0])]))
    np.testing.assert_allclose(found[0].probabilities[:, 1:], [[0.2, 0.2], [0.4, 0.4], [0.1, 0.4]], atol=1e-3)
    assert found[0].boxes is None
    assert found[1].probabilities.shape == (0, 3)
    assert [len(one) for one in extractor.seen] == [3, 0]


def test_refined_regions_by_hand() -> None:
    """The two likeliest regions are the second, most likely wide, and the third, tall: only the first of them moves."""
    at_work, extractor = scorer(2)
    found = list(at_work.score([(IMAGE, BOXES), (IMAGE, BOXES[:1]), (IMAGE, BOXES[:0])]))
    assert [len(one.probabilities) for one in found] == [5, 2, 0]
    assert found[0].boxes is not None
    assert found[0].deltas is not None
    np.testing.assert_array_equal(found[0].boxes[:3], BOXES)
    np.testing.assert_allclose(found[0].boxes[3:], [[140, 0, 180, 40], [50, 50, 60, 90]], atol=1e-3)
    np.testing.assert_allclose(found[0].probabilities[3:, 1:], [[0.4, 0.4], [0.1, 0.4]], atol=2e-3)
    assert found[0].deltas.shape == (5, 2, 4)
    np.testing.assert_array_equal(extractor.seen[-1], np.zeros((0, 4)))


def test_what_moves_out_of_the_image_stays() -> None:
    at_work, _ = scorer(1)
    boxes = np.float32([[150, 10, 200, 50]])
    found = next(iter(at_work.score([(IMAGE, boxes)])))
    np.testing.assert_array_equal(found.boxes, np.concatenate([boxes, boxes]))


def test_without_box_regression_nothing_moves() -> None:
    at_work, _ = scorer(2)
    at_work.network.head.deltas = lambda x, geometry: None  # type: ignore[method-assign]
    found = next(iter(at_work.score([(IMAGE, BOXES)])))
    assert found.deltas is None
    np.testing.assert_array_equal(found.boxes, BOXES)


def test_views_are_averaged_and_their_moves_turned() -> None:
    """The mirrored view's move to the right is one to the left."""
    features, geometry = np.tile(BOXES / np.float32(100), 2), np.zeros((3, COLUMNS), np.float32)
    found = score_features(widths_head(), features, geometry, (False, True))
    assert found.deltas is not None
    np.testing.assert_array_equal(found.deltas[:, 0, 0], [0, 0, 0])
    np.testing.assert_allclose(found.probabilities[:, 1], [0.2, 0.4, 0.1], atol=1e-3)


@pytest.mark.parametrize("count", [0, 2])
def test_scores_of_some_and_of_more(count: int) -> None:
    first = ScoredRegions(np.float32([[0.5, 0.5], [0.2, 0.8]]), None)
    more = ScoredRegions(np.zeros((count, 2), np.float32), None)
    both = first.with_more(BOXES[:2], BOXES[:count], more)
    assert (len(both.probabilities), both.deltas) == (2 + count, None)
    np.testing.assert_array_equal(both.boxes, np.concatenate([BOXES[:2], BOXES[:count]]))
    np.testing.assert_array_equal(first.of(np.array([1])).probabilities, np.float32([[0.2, 0.8]]))
