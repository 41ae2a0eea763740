"""The second classifier: when it is asked, on what it is trained, and what its answer changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from detpipe.classify.labeling import Regions
from detpipe.diagnosis.false_detections import FalseType, find_false
from detpipe.diagnosis.second_opinion import (
    EXAMPLES,
    LabelledImage,
    confident_score,
    examples_from_images,
    questioned,
    sampled_rows,
    scores_from_images,
    train_second,
    with_second_opinion,
)
from detpipe.structures import Float32Array, Image
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, SHORT, found, objects


def test_the_confident_score_by_hand() -> None:
    truth = {"a": objects((BOX, CAT), ((20, 0, 30, 10), CAT))}
    rows = [
        (0.9, FAR, CAT),  # on background: not counted
        (0.8, BOX, CAT),  # right: 1 of 1
        (0.7, (20, 0, 30, 10), CAT),  # right: 2 of 2
        (0.6, SHORT, CAT),  # 2 of 3
    ]
    assert confident_score(truth, {"a": found(*rows)}, 0.5) == pytest.approx(0.7)
    assert confident_score(truth, {"a": found(*rows)}, 0.75) == pytest.approx(0.8)
    # Equal scores can't be separated: the right one of the two at 0.8 does not make 0.8 confident.
    tied = found((0.8, BOX, CAT), (0.8, SHORT, DOG))
    assert confident_score(truth, {"a": tied}, 0.5) == math.inf
    assert confident_score({"a": objects()}, {"a": found()}, 0.5) == math.inf


def test_only_confident_background_is_questioned() -> None:
    detections = found((0.9, FAR, CAT), (0.8, SHORT, CAT), (0.7, (200, 0, 210, 10), CAT), (0.6, FAR, DOG))
    wrong = find_false("a", objects((BOX, CAT)), detections, CLASSES, threshold=0.5)
    asked = questioned(wrong, 0.7)
    assert [one.detection for one in asked] == [0, 2]
    answered = with_second_opinion(wrong, {("a", 0): 0.8, ("a", 2): 0.3})
    assert [(one.type, one.second_score) for one in answered] == [
        (FalseType.unlabelled, 0.8),
        (FalseType.localisation, None),
        (FalseType.background, 0.3),
        (FalseType.background, None),
    ]
    assert questioned([], 0.5) == []


def test_rows_for_training() -> None:
    labels = np.array([0, 1, 2, 0, 0], np.int64)
    overlap = np.array([[0.1, 0], [0.9, 0], [0, 0.8], [0.4, 0], [0, 0]], np.float32)
    assert sampled_rows(labels, overlap, seed=0).tolist() == [0, 1, 2, 4]  # 3 is between background and object
    many = sampled_rows(np.repeat([0, 1], 5000), np.repeat([[0.0], [0.9]], 5000, axis=0), seed=0)
    assert len(many) == EXAMPLES
    assert (many < 5000).sum() == EXAMPLES // 2
    assert len(sampled_rows(np.zeros(0, np.int64), np.zeros((0, 2)), seed=0)) == 0


class MeanColour:
    """A feature extractor of one number and a constant: the mean of the region's pixels."""

    width = 2

    def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
        for image, boxes in images:
            rows = [[float(image[y1:y2, x1:x2].mean()) / 255, 1.0] for x1, y1, x2, y2 in boxes.astype(int)]
            yield np.array(rows, np.float32).reshape(-1, 2)


def drawn() -> tuple[Image, LabelledImage]:
    """A bright square, which is a cat, and a dark one, which is background."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[:10, :10] = 255
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]] * 5, np.float32)
    labels = np.array([CAT, 0] * 5, np.int64)
    overlap = np.zeros((10, 3), np.float32)
    overlap[::2, 0] = 1
    regions = Regions(boxes, labels, overlap[:, 0], np.zeros((10, 4), np.float32))
    return image, LabelledImage(image, regions, overlap)


def test_it_finds_what_it_learned_in_another_image() -> None:
    image, labelled = drawn()
    head = train_second(examples_from_images(MeanColour(), [labelled], CLASSES, seed=0))
    detections = found((0.9, (0, 0, 10, 10), CAT), (0.8, (20, 20, 30, 30), CAT), (0.7, (0, 0, 10, 10), DOG))
    asked = find_false("test", objects(), detections, CLASSES, threshold=0.5)
    scores = scores_from_images(head, MeanColour(), [(image, asked)], CLASSES)
    assert [scores[("test", index)] >= 0.5 for index in range(3)] == [True, False, False]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="regions"):
        train_second(examples_from_images(MeanColour(), [], CLASSES, seed=0))
