"""Resampled mAP: against voc_ap on the images that were drawn, each as often as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detpipe.metrics.bootstrap import ImageBootstrap
from detpipe.metrics.map_bootstrap import hits_by_class, resampled_aps, resampled_map
from detpipe.metrics.voc_ap import VocMethod, voc_ap
from detpipe.structures import Detections, GroundTruth, ImageId

CLASSES = ("cat", "dog")
SCORES = np.random.default_rng(0).permutation(1000).astype(np.float32)
"""No two alike: copies of an image have the same scores, and between images ties are broken by their order."""


def drawn_image(generator: np.random.Generator, scores: np.ndarray) -> tuple[GroundTruth, Detections]:
    """Objects on a row of squares, and detections half of which lie on them."""
    n, m = int(generator.integers(0, 5)), len(scores)
    corner = np.arange(n)[:, None] * np.float32(20)
    truth = GroundTruth.from_boxes(np.hstack([corner, corner, corner + 10, corner + 10]), generator.integers(1, 3, n))
    x = generator.integers(0, 10, m)[:, None] * np.float32(10)
    boxes = np.hstack([x, x, x + 10, x + 10]).astype(np.float32)
    return truth, Detections(boxes, np.sort(scores)[::-1].copy(), generator.integers(1, 3, m))


@pytest.mark.parametrize("seed", range(8))
def test_equals_voc_ap_of_the_images_that_were_drawn(seed: int):
    generator = np.random.default_rng(seed)
    pairs = [drawn_image(generator, SCORES[6 * i : 6 * i + 6]) for i in range(6)]
    truth: dict[ImageId, GroundTruth] = {i: gt for i, (gt, _) in enumerate(pairs)}
    found: dict[ImageId, Detections] = {i: one for i, (_, one) in enumerate(pairs)}
    resampled = resampled_map(truth, found, CLASSES, resamples=20, seed=seed)
    assert resampled.value[0] == pytest.approx(voc_ap(truth, found, CLASSES, method=VocMethod.VOC10).map)
    for counts, value in zip(ImageBootstrap.draw(6, 20, seed).counts, resampled.samples[:, 0], strict=True):
        copies = [image for image, count in enumerate(counts) for _ in range(count)]
        of_copies = voc_ap(
            {place: truth[image] for place, image in enumerate(copies)},
            {place: found[image] for place, image in enumerate(copies)},
            CLASSES,
            method=VocMethod.VOC10,
        )
        assert value == pytest.approx(of_copies.map, nan_ok=True)


def test_by_hand():
    """Two images, an object each, one found: AP is 1/2; of the resamples 1, 1/2 and 0, and nothing else."""
    truth = {name: GroundTruth.from_boxes([[0, 0, 10, 10]], [1]) for name in ("found", "missed")}
    hit = Detections(np.array([[0, 0, 10, 10]], np.float32), np.ones(1, np.float32), np.ones(1, np.int64))
    resampled = resampled_map(truth, {"found": hit}, ["cat"], resamples=200, seed=0)
    assert resampled.value.tolist() == [0.5]
    assert set(resampled.samples[:, 0].tolist()) == {0.0, 0.5, 1.0}


def test_without_images_there_is_no_number():
    resampled = resampled_map({}, {}, CLASSES, resamples=3, seed=0)
    assert math.isnan(resampled.value[0])
    assert all(math.isnan(end[0]) for end in resampled.interval)


def test_columns_of_equal_hits_are_those_of_the_other_detector():
    pairs = [drawn_image(np.random.default_rng(i), SCORES[6 * i : 6 * i + 6]) for i in range(6)]
    truth: dict[ImageId, GroundTruth] = {i: gt for i, (gt, _) in enumerate(pairs)}
    found: dict[ImageId, Detections] = {i: one for i, (_, one) in enumerate(pairs)}
    no_dogs = {
        i: Detections(one.boxes[one.labels == 1], one.scores[one.labels == 1], one.labels[one.labels == 1])
        for i, one in found.items()
    }
    bootstrap = ImageBootstrap.draw(6, 20, 0)
    hits, fewer = hits_by_class(truth, found, 2), hits_by_class(truth, no_dogs, 2)
    first = resampled_aps(hits, bootstrap)
    alone, beside = resampled_aps(fewer, bootstrap), resampled_aps(fewer, bootstrap, (hits, first))
    assert first.value[1] > 0
    assert alone.value.tolist() == beside.value.tolist() == [first.value[0], 0.0]
    np.testing.assert_array_equal(alone.samples, beside.samples)
