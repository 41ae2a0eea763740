"""The second pass in training: where regions are moved, what they are then, and what they add to the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from detpipe.boxes import encode
from detpipe.classify.crops.train import region_losses
from detpipe.classify.detect import ScoredRegions, moved_by_best
from detpipe.classify.fast_rcnn.batches import RegionBatch
from detpipe.classify.fast_rcnn.denoising import predicted
from detpipe.classify.fast_rcnn.losses import batch_losses
from detpipe.classify.fast_rcnn.second_pass import moved_regions
from detpipe.classify.labeling import SamplingConfig
from detpipe.heads.fast_rcnn.network import FastRcnn, RegionOutputs
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.region_head import BoxRegression
from detpipe.structures import GroundTruth
from tests.classify import tiny

CPU, SAMPLING = torch.device("cpu"), SamplingConfig()
OBJECT, HARD = (10.0, 10.0, 50.0, 50.0), (60.0, 60.0, 90.0, 90.0)
TRUTHS = (
    replace(GroundTruth.from_boxes([OBJECT, HARD], [1, 2]), difficult=np.array([False, True])),
    GroundTruth.from_boxes([], []),
)


def batch(regions: list[list[float]], labels: list[int]) -> RegionBatch:
    return RegionBatch(
        np.zeros((2, 100, 100, 3), dtype=np.uint8),
        np.array(regions, dtype=np.float32).reshape(-1, 5),
        np.array(labels, dtype=np.int64),
        np.zeros((len(labels), 4), dtype=np.float32),
        truths=TRUTHS,
        sizes=((100, 100), (100, 100)),
    )


def outputs(one: RegionBatch, targets: list[tuple[float, ...]], probabilities: list[list[float]]) -> RegionOutputs:
    """Of two classes: the deltas of the most probable one lead to the targets, those of the other far away."""
    deltas = np.full((len(targets), 2, 4), 3.0, dtype=np.float32)
    best = np.array([np.argmax(row[1:]) for row in probabilities], dtype=np.int64)
    if targets:
        deltas[np.arange(len(targets)), best] = encode(one.regions[:, 1:], np.float32(targets))
    logits = torch.tensor(probabilities).reshape(-1, 3).log()
    return RegionOutputs(logits, torch.from_numpy(deltas), None)


def test_what_moved_regions_are() -> None:
    one = batch(
        [[0, 5, 5, 45, 45], [0, 20, 20, 90, 90], [1, 0, 0, 20, 20], [0, 0, 0, 9, 9], [0, 55, 55, 80, 80]],
        [1, 0, 0, 0, 0],
    )
    found = moved_regions(
        one,
        outputs(
            one,
            [OBJECT, (12.0, 10.0, 52.0, 50.0), (30.0, 30.0, 150.0, 60.0), OBJECT, HARD],
            [[0.98, 0.02, 0.0], [0.1, 0.9, 0.0], [0.5, 0.0, 0.5], [0.97, 0.03, 0.0], [0.1, 0.0, 0.9]],
        ),
        SAMPLING,
    )
    # Foreground whatever its score; background that became foreground; background of an image without objects, clipped.
    # Not the fourth, which detection would not score again, nor the fifth, which is on a difficult object now.
    np.testing.assert_allclose(found.regions, [[0, *OBJECT], [0, 12, 10, 52, 50], [1, 30, 30, 100, 60]], atol=1e-3)
    assert found.labels.tolist() == [1, 1, 0]
    np.testing.assert_allclose(found.deltas, [[0, 0, 0, 0], [-0.05, 0, 0, 0], [0, 0, 0, 0]], atol=1e-5)


def test_no_regions() -> None:
    one = batch([], [])
    found = moved_regions(one, outputs(one, [], []), SAMPLING)
    assert found.regions.shape == (0, 5)
    assert found.labels.shape == (0,)
    assert found.deltas.shape == (0, 4)


def test_they_move_as_in_detection() -> None:
    generator = np.random.default_rng(0)
    corners = np.sort(generator.uniform(0, 100, (50, 2, 2)).astype(np.float32), axis=1).reshape(50, 4)
    one = batch([[0, *box] for box in corners.tolist()], [1] * 50)
    scores = torch.from_numpy(generator.normal(size=(50, 3)).astype(np.float32))
    deltas = torch.from_numpy(generator.normal(0, 0.2, (50, 2, 4)).astype(np.float32))
    found = moved_regions(one, RegionOutputs(scores, deltas, None), replace(SAMPLING, bg_iou_low=0.0))
    wanted = moved_by_best(corners, ScoredRegions(scores.softmax(1).numpy(), deltas.numpy()), (100, 100))
    assert {tuple(row) for row in found.regions[:, 1:].tolist()} <= {tuple(row) for row in wanted.tolist()}
    assert len(found.regions) > 40


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_the_loss(weight: float) -> None:
    head = FastRcnnConfig(maps=["stem"], merge_width=8, pool_size=3, hidden=16, refine_weight=weight)
    network = FastRcnn(tiny.TinyBackbone(), 2, head, seed=0)
    one = batch([[0, 5, 5, 45, 45], [0, 20, 20, 90, 90], [1, 0, 0, 20, 20], [1, 5, 0, 20, 99]], [1, 0, 0, 0])
    maps = network.feature_maps(torch.from_numpy(one.images))
    losses = batch_losses(network, maps, one, head, SAMPLING, bf16=False)
    first, _ = predicted(network, maps, torch.from_numpy(one.regions), None)
    wanted = region_losses(network.box_regressor, first.logits, first.deltas, one, head, CPU)["loss"]
    if weight:
        moved = moved_regions(one, first, SAMPLING)
        again, _ = predicted(network, maps, torch.from_numpy(moved.regions), None)
        loss = region_losses(network.box_regressor, again.logits, again.deltas, moved, head, CPU)["loss"]
        loss = loss * len(moved.labels) / 4
        assert losses["refine_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        wanted = wanted + weight * loss
    assert losses["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    losses["loss"].backward()
    assert ("refine_loss" in losses) == bool(weight)
    nothing = batch_losses(network, maps, batch([], []), head, SAMPLING, bf16=False)
    assert nothing["loss"].item() == 0


def test_settings() -> None:
    with pytest.raises(ValueError, match=r"head\.refine_weight"):
        FastRcnnConfig(refine_weight=-1)
    with pytest.raises(ValueError, match=r"head\.refine_weight.*head\.box_regression"):
        FastRcnnConfig(refine_weight=1, box_regression=BoxRegression.none)
