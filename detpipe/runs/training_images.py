"""The split of a data set's images into training and validation."""

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
    """Some of the images (records) of a split of a data set."""

    split: Split
    dataset: Dataset
    records: tuple[ImageRecord, ...]


def training_parts(source: DatasetSource, val_share: float, seed: int, *, annotated: bool = True) -> tuple[Part, Part]:
    """Return the training and the validation images.

    Validation uses the val split if it has annotations, else a random share val_share of the training images.
    Raises ValueError without a train split, or, if `annotated`, without its annotations.
    """
    splits = load_splits(source)
    train = splits.get(Split.train)
    if train is None or (annotated and train.ground_truth is None):
        wanted = "a train split with annotations" if annotated else "a train split"
        raise ValueError(f"dataset: expected {wanted}, got none; name it in the dataset settings")
    val = splits.get(Split.val)
    if val is not None and val.ground_truth is not None:
        return Part(Split.train, train, train.records), Part(Split.val, val, val.records)
    kept, held_out = hold_out(train.records, val_share, seed)
    return Part(Split.train, train, kept), Part(Split.train, train, held_out)


def taught_classes(dataset: Dataset) -> list[str]:
    """Return the classes that have at least one object with area that is neither difficult nor a crowd.

    A data set without annotations gives [].
    """
    present = np.zeros(len(dataset.classes) + 1, dtype=np.bool_)
    annotated = dataset.ground_truth or {}
    for truth in (annotated[record.image_id] for record in dataset.records if annotated):
        used = ~(truth.difficult | truth.crowd) & (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(axis=1)
        present[truth.labels[used]] = True
    return [name for label, name in enumerate(dataset.classes, start=1) if present[label]]


def hold_out(
    records: Sequence[ImageRecord], share: float, seed: int
) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Return training and validation images in the data set's order.

    The choice depends only on the seed and the image's id, so adding images moves no other image.
    """
    chosen = {record.image_id for record in records if generator_for(seed, f"val/{record.image_id}").random() < share}
    return (
        tuple(record for record in records if record.image_id not in chosen),
        tuple(record for record in records if record.image_id in chosen),
    )
