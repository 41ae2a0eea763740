from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.network.settings import Device, Precision
from detpipe.runs.run_facts import facts_of, object_counts, object_sides
from detpipe.structures import Dataset, GroundTruth, ImageRecord
from tests import drawn


def dataset(*truths: GroundTruth) -> Dataset:
    names = [f"{number}" for number in range(len(truths))]
    return Dataset(
        name="d",
        classes=("a", "b", "c"),
        category_ids=(1, 2, 3),
        records=tuple(ImageRecord(name, Path(name), (50, 100)) for name in names),
        ground_truth=dict(zip(names, truths, strict=True)),
    )


def test_difficult_objects_do_not_count() -> None:
    boxes, labels = [[0, 0, 10, 10], [0, 0, 20, 5], [0, 0, 1, 4]], [1, 1, 2]
    one = replace(GroundTruth.from_boxes(boxes, labels), difficult=np.array([True, False, False]))
    found = dataset(one, GroundTruth.from_boxes(np.zeros((0, 4)), []))
    assert object_counts(found).tolist() == [1, 1, 0]
    assert object_sides(found).tolist() == [10 / 50, 2 / 50]


def test_no_images() -> None:
    assert object_counts(dataset()).tolist() == [0, 0, 0]
    assert object_sides(dataset()).tolist() == []


def test_facts_of_the_drawn_data(voc_root: Path) -> None:
    facts = facts_of(VocSource(root=str(voc_root)), Device.cpu, Precision.float32)
    assert facts is not None
    assert (facts.images, facts.test_images) == (len(drawn.TRAIN), len(drawn.TEST))
    assert (facts.classes, facts.objects, facts.objects_per_class) == (2, 20, 10)
    assert 0.2 < facts.object_side < 0.4  # 28 to 48 pixels of 120
    assert facts.cores >= 1
    assert not facts.bf16


def test_without_test_images_there_are_none(voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VocSource, "has", lambda _, split: split is Split.train)
    assert facts_of(VocSource(root=str(voc_root)), Device.cpu, Precision.float32) is None
