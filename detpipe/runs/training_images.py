"""Which images of a data set teach, and which only test the training while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detpipe.datasets.source import DatasetSource, Split
from detpipe.randomness import generator_for
from detpipe.runs.run_folder import load_splits
from detpipe.structures import Dataset, ImageRecord


@dataclass(frozen=True, eq=False)
class Part:
    """Some images (records) of a data set's split."""

    split: Split
    dataset: Dataset
    records: tuple[ImageRecord, ...]


def training_parts(source: DatasetSource, val_share: float, seed: int, *, annotated: bool = True) -> tuple[Part, Part]:
    """The images to learn from, and those for validation: the val split's, or a share of the training images.

    Raises ValueError where there is no train split, or, with `annotated`, none with annotations.
    """
    splits = load_splits(source)
    train = splits.get(Split.train)
    if train is None or (annotated and train.ground_truth is None):
        wanted = "a train split with annotations" if annotated else "a train split"
        raise ValueError(f"expected {wanted}, got none: name it in the dataset settings")
    val = splits.get(Split.val)
    if val is not None and val.ground_truth is not None:
        return Part(Split.train, train, train.records), Part(Split.val, val, val.records)
    kept, held_out = hold_out(train.records, val_share, seed)
    return Part(Split.train, train, kept), Part(Split.train, train, held_out)


def taught_classes(dataset: Dataset) -> list[str]:
    """The classes that have an object to learn from: neither difficult nor a crowd, and with an area.

    None where there are no annotations.
    """
    found = np.zeros(len(dataset.classes) + 1, dtype=np.bool_)
    annotated = dataset.ground_truth or {}
    for truth in (annotated[record.image_id] for record in dataset.records if annotated):
        taught = ~(truth.difficult | truth.crowd) & (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(axis=1)
        found[truth.labels[taught]] = True
    return [name for label, name in enumerate(dataset.classes, start=1) if found[label]]


def hold_out(
    records: Sequence[ImageRecord], share: float, seed: int
) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Training and validation images in the data set's order; chosen by seed and id, so an image keeps its side."""
    chosen = {record.image_id for record in records if generator_for(seed, f"val/{record.image_id}").random() < share}
    return (
        tuple(record for record in records if record.image_id not in chosen),
        tuple(record for record in records if record.image_id in chosen),
    )
