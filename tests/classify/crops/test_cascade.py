"""A cheap look before a dear one: who survives, and where scores end up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from detpipe.classify.crops.cascade import CascadeScorer, in_their_places, most_likely
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.detect import RegionScorer, ScoredRegions
from detpipe.structures import Float32Array, Image
from tests.classify import tiny


class Written:
    """A scorer whose probability of an object is the box's x1 / 100, and that notes how many regions it saw."""

    network = nn.Identity()

    def __init__(self) -> None:
        self.seen: list[int] = []

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        for _, boxes in images:
            self.seen.append(len(boxes))
            share = boxes[:, 0] / 100
            yield ScoredRegions(np.stack([1 - share, share], axis=1).astype(np.float32), None)


def boxes_at(*lefts: float) -> Float32Array:
    return np.array([(left, 0, 200, 5) for left in lefts], dtype=np.float32).reshape(-1, 4)


CPU = torch.device("cpu")
IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)


def test_the_likeliest_survive_and_the_rest_is_background() -> None:
    first, second = Written(), Written()
    cascade = CascadeScorer(first, second, keep=2)
    images = [(IMAGE, boxes_at(10, 90, 30, 50)), (IMAGE, boxes_at()), (IMAGE, boxes_at(20))]
    some, none, one = cascade.score(images)
    assert (first.seen, second.seen) == ([4, 0, 1], [2, 0, 1])
    np.testing.assert_allclose(some.probabilities[:, 1], [0, 0.9, 0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(some.probabilities.sum(axis=1), 1, rtol=1e-6)
    assert none.probabilities.shape == (0, 2)
    assert one.probabilities[0, 1] == pytest.approx(0.2)
    assert list(cascade.score([])) == []


def test_equal_regions_survive_in_their_order() -> None:
    scored = ScoredRegions(np.full((5, 2), 0.5, dtype=np.float32), None)
    assert most_likely(scored, 3).tolist() == [0, 1, 2]


def test_deltas_go_with_their_regions() -> None:
    deltas = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    scored = ScoredRegions(np.array([[0.2, 0.3, 0.5]], dtype=np.float32), deltas)
    placed = in_their_places(scored, 3, np.array([2]))
    assert placed.deltas is not None
    np.testing.assert_array_equal(placed.deltas[2], deltas[0])
    assert not placed.deltas[:2].any()


def test_keeping_all_is_the_second_look_alone() -> None:
    network = tiny.confident(tiny.classifier())
    small, large = (
        RegionScorer(
            network, CropConfig(size=size), device=torch.device("cpu"), bf16=False, compiled=False, batch_size=4
        )
        for size in (8, 16)
    )
    image = tiny.crops(1)[0]
    boxes = np.array([[0, 0, 8, 8], [4, 2, 16, 12], [1, 1, 9, 15]], dtype=np.float32)
    (alone,), (both,) = large.score([(image, boxes)]), CascadeScorer(small, large, keep=9).score([(image, boxes)])
    np.testing.assert_array_equal(both.probabilities, alone.probabilities)
