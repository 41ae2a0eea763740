"""Denoising queries: where they are, what they learn, and that the regions of the image do not see them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from detpipe.boxes import area, decode, iou
from detpipe.classify.fast_rcnn.best_box import with_best_box
from detpipe.classify.fast_rcnn.denoising import Queries, denoising_queries, noisy, predicted, with_denoising
from detpipe.classify.labeling import SamplingConfig
from detpipe.heads.fast_rcnn.network import FastRcnn, RegionOutputs
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.structures import GroundTruth
from tests.classify import tiny

HEAD = FastRcnnConfig(maps=["stem"], merge_width=8, pool_size=3, hidden=16, attention=1, denoise=3, best_weight=1.0)
TRUTHS = (
    GroundTruth.from_boxes([[10, 10, 40, 30], [60, 50, 90, 90]], [1, 2]),
    GroundTruth.from_boxes([], []),
    replace(GroundTruth.from_boxes([[5, 5, 30, 30]], [1]), difficult=np.ones(1, dtype=np.bool_)),
    GroundTruth.from_boxes([[20, 20, 60, 60]], [2]),
)
SIZES = ((100, 100),) * 4


def queries(seed: int = 0, count: int = 3) -> Queries:
    draws = [np.random.default_rng((seed, index)) for index in range(4)]
    return denoising_queries(TRUTHS, SIZES, count, SamplingConfig(), draws)


def network() -> FastRcnn:
    torch.manual_seed(2)
    made = FastRcnn(tiny.TinyBackbone(), 2, HEAD, seed=0).eval()
    assert made.attention is not None
    with torch.no_grad():
        for layer in made.attention.layers:
            layer.joined.weight.normal_(std=0.3)  # type: ignore[union-attr]
    return made


def test_copies_are_near_and_false_boxes_beside() -> None:
    objects = np.tile(np.float32([[100, 100, 140, 120]]), (200, 1))
    found = noisy(objects, (1000, 1000), np.random.default_rng(0))
    copies, false = iou(found[:200], objects[:1])[:, 0], iou(found[200:], objects[:1])[:, 0]
    assert found.shape == (400, 4)
    assert copies.min() > 0.25
    assert np.median(copies) > 0.6
    assert false.max() < 0.5
    assert np.median(false) < 0.2


def test_what_queries_are() -> None:
    found = queries()
    assert set(found.regions[:, 0]) == {0, 3}  # the images with objects that can be learned
    assert area(found.regions[:, 1:]).min() > 0
    assert found.regions[:, 1:].min() >= 0
    assert found.regions[:, 1:].max() <= 100
    assert set(found.sets.astype(int)) <= {*range(4, 7), *range(13, 16)}
    for image in (0, 3):
        own = found.regions[:, 0] == image
        overlaps = iou(found.regions[own, 1:], TRUTHS[image].boxes)
        np.testing.assert_allclose(found.ious[own], overlaps.max(axis=1))
        np.testing.assert_array_equal(found.labels[own] > 0, overlaps.max(axis=1) >= 0.5)
        foreground = own & (found.labels > 0)
        placed = decode(found.regions[foreground, 1:], found.deltas[foreground])
        np.testing.assert_allclose(iou(placed, TRUTHS[image].boxes).max(axis=1), 1, atol=1e-4)
    again, other = queries(), queries(seed=1)
    np.testing.assert_array_equal(found.regions, again.regions)
    assert not np.array_equal(found.regions, other.regions)


def test_regions_do_not_see_queries_and_queries_do_not_see_regions() -> None:
    one, found = network(), queries()
    images = torch.randint(0, 256, (4, 100, 100, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    regions = torch.tensor([[0.0, 5, 5, 50, 50], [0, 20, 20, 80, 60], [3, 0, 0, 90, 90]])
    with torch.no_grad():
        maps = one.feature_maps(images)
        alone, none = predicted(one, maps, regions, None)
        both, of_queries = predicted(one, maps, regions, found)
        other, of_other = predicted(one, maps, regions[:1], found)
    assert none is None
    assert of_queries is not None
    assert of_other is not None
    torch.testing.assert_close(both.logits, alone.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_other.logits, of_queries.logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other.logits, both.logits[:1], rtol=1e-4, atol=1e-5)  # regions see each other


def test_the_target_of_the_logit_is_the_iou() -> None:
    found, one = queries(), network()
    ious = torch.from_numpy(found.ious)
    labels = torch.from_numpy(found.labels)
    sure = 50 * torch.nn.functional.one_hot(labels, 3).float()
    exact = RegionOutputs(sure, torch.from_numpy(found.deltas)[:, None].expand(-1, 2, -1), ious.logit().clamp(-30, 30))
    losses = with_denoising({"loss": torch.tensor(1.0)}, one, exact, found, HEAD)
    entropy = -(ious * ious.clamp(min=1e-9).log() + (1 - ious) * (1 - ious).clamp(min=1e-9).log()).sum() / ious.sum()
    assert losses["denoise_loss"] == pytest.approx(float(entropy), abs=1e-4)
    assert losses["loss"] == pytest.approx(1 + float(entropy), abs=1e-4)


def test_no_objects_and_no_queries() -> None:
    draws = [np.random.default_rng(0)]
    empty = denoising_queries([GroundTruth.from_boxes([], [])], [(50, 50)], 2, SamplingConfig(), draws)
    assert empty.regions.shape == (0, 5)
    one, region = network(), torch.tensor([[0.0, 5, 5, 50, 50]])
    maps = one.feature_maps(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    outputs, of_queries = predicted(one, maps, region, empty)
    losses = with_denoising({"loss": torch.tensor(0.0)}, one, of_queries, empty, HEAD)
    assert losses["denoise_loss"] == 0
    assert with_denoising({"loss": torch.tensor(0.0)}, one, None, None, HEAD) == {"loss": 0}
    found = with_best_box(
        {"loss": torch.tensor(0.0)}, outputs, region, [GroundTruth.from_boxes([], [])], [(50, 50)], HEAD
    )
    assert math.isfinite(float(found["best_loss"].detach()))


def test_copies_need_attention() -> None:
    with pytest.raises(ValueError, match=r"head\.denoise=2: .*head\.attention"):
        FastRcnnConfig(denoise=2)
    with pytest.raises(ValueError, match=r"head\.denoise: expected 0 to"):
        FastRcnnConfig(attention=1, denoise=-1)
