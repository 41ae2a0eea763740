"""The digest of all labels: the same for the same labels, another for each change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import load_splits
from detpipe.structures import Dataset, GroundTruth


def with_other_label(dataset: Dataset) -> Dataset:
    assert dataset.ground_truth is not None
    name, truth = next(iter(dataset.ground_truth.items()))
    changed = GroundTruth.from_boxes(truth.boxes, [2, *truth.labels[1:]])
    return replace(dataset, ground_truth={**dataset.ground_truth, name: changed})


def test_it_does_not_depend_on_the_order_of_the_splits_or_on_who_loads_them(voc_root: Path) -> None:
    splits = load_splits(VocSource(root=str(voc_root)))
    again = dict(reversed(load_splits(VocSource(root=str(voc_root))).items()))
    assert labels_digest(splits) == labels_digest(again)


def test_one_changed_label_of_any_split_changes_it(voc_root: Path) -> None:
    splits = load_splits(VocSource(root=str(voc_root)))
    found = {labels_digest(splits)}
    for split in (Split.train, Split.test):
        found.add(labels_digest({**splits, split: with_other_label(splits[split])}))
    assert len(found) == 3


def test_a_missing_split_changes_it_and_none_has_a_digest(voc_root: Path) -> None:
    splits = load_splits(VocSource(root=str(voc_root)))
    assert len({labels_digest(splits), labels_digest({Split.train: splits[Split.train]}), labels_digest({})}) == 3
