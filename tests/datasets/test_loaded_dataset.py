"""A loaded split as a sequence of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detpipe import Dataset, ImageRecord, evaluate, load_dataset
from detpipe.datasets.image_file import read_image
from detpipe.datasets.voc import VocSource
from tests import drawn


def test_images_by_position_name_and_slice(voc_root: Path) -> None:
    dataset = load_dataset("voc", "test", root=str(voc_root))
    first = dataset[0]
    truth = dataset.ground_truth
    assert truth is not None
    assert (first.image_id, first.path) == (dataset.records[0].image_id, dataset.records[0].path)
    assert first.objects is truth[first.image_id]
    assert first.names == [dataset.classes[label - 1] for label in first.objects.labels]
    np.testing.assert_array_equal(first.image, read_image(first.path))
    assert dataset[-1].image_id == dataset.records[-1].image_id
    assert dataset[np.int64(0)].image_id == first.image_id
    assert dataset[str(first.image_id)].path == dataset[first.path.name].path == first.path
    assert [one.image_id for one in dataset] == [record.image_id for record in dataset.records]
    few = dataset[:2]
    assert [one.image_id for one in few] == [record.image_id for record in dataset.records[:2]]
    assert few.classes == dataset.classes
    assert evaluate(few, {}).voc10.objects.keys() == set(dataset.classes)
    assert str(len(dataset)) in repr(dataset)
    assert first.path.name in repr(first)


def test_it_keeps_its_settings(voc_root: Path) -> None:
    dataset = load_dataset("voc", "test", root=str(voc_root))
    assert dataset.source == VocSource(root=str(voc_root))
    assert isinstance(dataset, Dataset)


def test_a_path_is_enough(voc_root: Path, tmp_path: Path) -> None:
    found = load_dataset(voc_root, "train", max_bad=0.5)
    assert found.source == VocSource(root=str(voc_root), max_bad=0.5)
    assert load_dataset(str(voc_root))[0].path == load_dataset("voc", root=voc_root)[0].path
    with pytest.raises(ValueError, match="kind: expected"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected a data set"):
        load_dataset(tmp_path)


def test_what_it_does_not_have_is_refused(voc_root: Path) -> None:
    dataset = load_dataset("voc", "test", root=str(voc_root))
    with pytest.raises(IndexError, match=str(len(dataset))):
        dataset[len(dataset)]
    with pytest.raises(KeyError, match=f"did you mean {drawn.TEST[0]}"):
        dataset[f"{drawn.TEST[0]}x"]
    with pytest.raises(TypeError):
        dataset[0.5]  # type: ignore[call-overload]
    with pytest.raises(IndexError):
        dataset[:0][0]
    assert [*dataset[:0]] == []


def test_a_file_name_of_two_images_is_refused(voc_root: Path) -> None:
    dataset = load_dataset("voc", "test", root=str(voc_root))[:1]
    assert dataset.ground_truth is not None
    record = dataset.records[0]
    other = ImageRecord("other", record.path.parent / "b" / record.path.name, record.image_size)
    both = replace(
        dataset,
        records=(record, other),
        ground_truth={**dataset.ground_truth, "other": dataset.ground_truth[record.image_id]},
    )
    with pytest.raises(KeyError, match="other"):
        both[record.path.name]
    assert both["other"].path == other.path


def test_images_without_annotations_have_no_objects(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (one,) = load_dataset("images", root=tmp_path)
    assert (len(one.objects), one.names, one.image.shape) == (0, [], (6, 8, 3))
