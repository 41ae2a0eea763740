"""Heads on parts of a store: they learn from the chosen images only, and keep the labels of the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.classify.features.network import examples_of
from detpipe.classify.features.store import FeatureStore
from detpipe.classify.features.stored_detector import detect_stored, holds_classes, of_classes, rows_of, train_on
from detpipe.classify.settings import DetectConfig
from detpipe.heads.stored.linear_svm import SvmConfig
from detpipe.heads.stored.softmax_regression import SoftmaxRegressionConfig
from detpipe.storage.manifest import Manifest
from detpipe.structures import Detections, ImageId, ImageRecord

ROWS, WIDTH, CLASSES = 20, 6, ("cat", "dog", "fox")
IMAGES = ("a", "b", "c", "d")


def store_of(labels: dict[str, list[int]], *, mirrored: bool = False) -> FeatureStore:
    """Images with ROWS regions each, the first of which are of objects; feature k is high for class k."""
    generator = np.random.default_rng(0)
    parts = [np.array(own + [0] * (ROWS - len(own))) for own in labels.values()]
    every = np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
    views = 2 if mirrored else 1
    features = generator.normal(0, 0.1, (len(every), WIDTH * views)).astype(np.float16)
    features[np.arange(len(every)), every] += 3
    x = np.tile(np.arange(ROWS, dtype=np.float32) * 20, len(labels))
    overlaps = np.zeros((len(every), len(CLASSES)), dtype=np.float16)
    overlaps[np.flatnonzero(every), every[every > 0] - 1] = 0.9
    settings = {
        "classes": list(CLASSES),
        "category_ids": [1, 2, 3],
        "extraction": {"features": {"crops": False, "image_sides": [64], "grid": 1, "mirrored": mirrored}},
    }
    return FeatureStore(
        path=Path("features"),
        manifest=Manifest(stage="features", settings=settings, inputs={}),
        features=features,
        boxes=np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1),
        geometry=generator.normal(0, 1, (len(every), 11)).astype(np.float32),
        labels=every,
        ious=overlaps.max(axis=1, initial=0).astype(np.float32),
        deltas=np.zeros((len(every), 4), dtype=np.float32),
        class_ious=overlaps,
        images=np.repeat(np.arange(len(labels)), ROWS),
        spans={name: slice(ROWS * n, ROWS * (n + 1)) for n, name in enumerate(labels)},
        keys=[],
    )


ALL = {"a": [1, 1, 2], "b": [2, 2], "c": [3, 3, 1], "d": [1, 2, 3]}


def found_in(
    store: FeatureStore, images: list[ImageId], head: SvmConfig | SoftmaxRegressionConfig
) -> dict[ImageId, Detections]:
    detector = train_on(store, images, head, seed=0, bf16=False)
    records = [ImageRecord(name, Path(name), (10, 400)) for name in IMAGES]
    config = DetectConfig(score_floor=0.5, max_proposals=ROWS)
    return {image: one for image, (one,) in detect_stored([detector], store, records, config)}


@pytest.mark.parametrize("head", [SvmConfig(), SoftmaxRegressionConfig()])
def test_a_head_finds_what_it_learnt_in_other_images(head: SvmConfig | SoftmaxRegressionConfig) -> None:
    found = found_in(store_of(ALL), ["a", "b", "c"], head)
    assert sorted(found["d"].labels.tolist()) == [1, 2, 3]
    order = np.argsort(found["d"].boxes[:, 0])
    assert found["d"].labels[order].tolist() == [1, 2, 3]


def test_a_class_without_regions_is_left_out_and_labels_stay() -> None:
    """Without image b and c nothing is a dog. The fox keeps its label 3."""
    store = store_of({"a": [1, 1], "b": [2], "c": [3, 3], "d": [1, 2, 3]})
    found = found_in(store, ["a", "c"], SvmConfig())
    assert set(found["d"].labels.tolist()) == {1, 3}


def test_two_views_are_both_examples() -> None:
    store = store_of(ALL, mirrored=True)
    rows = rows_of(store, ["c", "a"])
    assert rows.tolist() == [*range(ROWS), *range(2 * ROWS, 3 * ROWS)]
    examples = examples_of(store, rows)
    assert examples.features.shape == (2 * 2 * ROWS, WIDTH)
    np.testing.assert_array_equal(examples.features[2 * ROWS :], store.features[rows, WIDTH:])
    every = examples_of(store)
    np.testing.assert_array_equal(every.labels[: len(store)][rows], examples.labels[: 2 * ROWS])


def test_classes_of_images() -> None:
    holds = holds_classes(store_of(ALL), ["b", "c", "nowhere"])
    assert holds.tolist() == [[False, True, False], [True, False, True], [False] * 3]


def test_fewer_classes() -> None:
    store = store_of({"a": [1, 3]})
    examples = of_classes(examples_of(store), np.array([1, 3]))
    assert examples.classes == ("cat", "fox")
    assert examples.labels[:3].tolist() == [1, 2, 0]
    assert examples.class_ious[:2].argmax(axis=1).tolist() == [0, 1]


def test_no_images() -> None:
    store = store_of(ALL)
    assert rows_of(store, []).tolist() == []
    assert list(detect_stored([], store, [], DetectConfig())) == []
    stranger = ImageRecord("x", Path("x"), (10, 10))
    detector = train_on(store, ["a"], SvmConfig(), seed=0, bf16=False)
    ((image, (found,)),) = detect_stored([detector], store, [stranger], DetectConfig())
    assert (image, len(found)) == ("x", 0)
    with pytest.raises(ValueError, match="at least one"):
        train_on(store, [], SvmConfig(), seed=0, bf16=False)
