"""The facts of experiment=auto, measured from a data set and this machine."""

from __future__ import annotations

import numpy as np

from detpipe.datasets.source import DatasetSource, Split
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.settings import Device, Precision
from detpipe.parallel import resolve_workers
from detpipe.runs.recipe import RunFacts
from detpipe.structures import Dataset, Float64Array, Int64Array


def facts_of(source: DatasetSource, device: Device, precision: Precision) -> RunFacts | None:
    """The facts of a data set; None without annotated training images, without objects, and without test images.

    Raises the errors of `DatasetSource.load` and `resolve_device`.
    """
    if not (source.has(Split.train) and source.has(Split.test)):
        return None
    train = source.load(Split.train)
    counts, sides = object_counts(train), object_sides(train)
    if not len(sides):
        return None
    counts = counts[counts > 0]
    return RunFacts(
        images=len(train),
        test_images=len(source.load(Split.test)),
        classes=len(counts),
        objects=int(counts.sum()),
        objects_per_class=float(np.median(counts)),
        object_side=round(float(np.median(sides)), 4),
        cores=resolve_workers(-1),
        bf16=resolve_bf16(precision, resolve_device(device)),
    )


def object_counts(dataset: Dataset) -> Int64Array:
    """The number of objects of each class (K,), without difficult objects and crowds. Zeros without annotations."""
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for truth in (dataset.ground_truth or {}).values():
        learned = ~(truth.difficult | truth.crowd)
        np.add.at(counts, truth.labels[learned] - 1, 1)
    return counts


def object_sides(dataset: Dataset) -> Float64Array:
    """The square root of each such object's area over its image's shorter side (N,). Empty without objects."""
    sides = [np.zeros(0)]
    for record in dataset.records:
        if dataset.ground_truth is None:
            break
        truth = dataset.ground_truth[record.image_id]
        boxes = truth.boxes[~(truth.difficult | truth.crowd)].astype(np.float64)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        sides.append(np.sqrt(area) / min(record.image_size))
    return np.concatenate(sides)
