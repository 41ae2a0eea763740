"""Training and detection from stored features alone: a head on some of the images, and its detections in others.

It reads no image, so many heads can be compared in seconds. N: rows of a store. K: classes of the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detpipe.classify.detect import NO_DETECTIONS, select_detections
from detpipe.classify.features.network import examples_of
from detpipe.classify.features.scorer import score_views, split_views
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import FeatureStore
from detpipe.classify.settings import DetectConfig
from detpipe.heads.stored.feature_head import Examples, FeatureHead, StoredHeadConfig
from detpipe.storage.dataclass_json import from_json
from detpipe.structures import BoolArray, Detections, ImageId, ImageRecord, Int64Array


@dataclass(frozen=True, eq=False)
class StoredDetector:
    """A head with the labels of its classes. labels: those among 1..K that it was trained on, ascending."""

    head: FeatureHead
    labels: Int64Array


def detect_stored(
    detectors: Sequence[StoredDetector], store: FeatureStore, records: Sequence[ImageRecord], detect: DetectConfig
) -> Iterator[tuple[ImageId, list[Detections]]]:
    """Yield each image's id and the detections of each detector in it, in one pass over a store.

    An image without stored regions has no detections. detect: max_proposals are the first rows of an image. Settings
    that need the image, as features.refine, are not used. The labels are numbered as in the store.
    """
    views = views_of(store)
    for record in records:
        span = store.spans.get(record.image_id, slice(0, 0))
        rows = slice(span.start, min(span.stop, span.start + detect.max_proposals))
        if rows.start == rows.stop:
            yield record.image_id, [NO_DETECTIONS] * len(detectors)
            continue
        seen = split_views(store.features[rows], store.geometry[rows], views)
        found = []
        for detector in detectors:
            scored = score_views(detector.head, seen)
            one = select_detections(store.boxes[rows], scored, record.image_size, detect)
            found.append(replace(one, labels=detector.labels[one.labels - 1]))
        yield record.image_id, found


def train_on(
    store: FeatureStore, images: Sequence[ImageId], head: StoredHeadConfig, *, seed: int, bf16: bool
) -> StoredDetector:
    """Train a head on the stored regions of some images.

    If the head needs regions of each class, classes without any are left out.
    Raises ValueError if there is no region of any class.
    """
    rows = rows_of(store, images)
    examples, labels = examples_of(store, rows), np.arange(1, len(store.classes) + 1)
    examples.check_any_positives()
    present = labels[np.isin(labels, store.labels[rows])]
    if head.NEEDS_EACH and 0 < len(present) < len(labels):
        examples, labels = of_classes(examples, present), present
    return StoredDetector(head.train(examples, seed=seed, bf16=bf16), labels)


def rows_of(store: FeatureStore, images: Sequence[ImageId]) -> Int64Array:
    """The rows of some images, in the order of the store. Images without rows add none."""
    spans = sorted((span.start, span.stop) for image in images if (span := store.spans.get(image)) is not None)
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(start, stop) for start, stop in spans)])


def holds_classes(store: FeatureStore, images: Sequence[ImageId]) -> BoolArray:
    """(I, K) bool: whether an image has stored regions of a class."""
    holds = np.zeros((len(images), len(store.classes)), dtype=np.bool_)
    for row, image in zip(holds, images, strict=True):
        labels = store.labels[store.spans.get(image, slice(0, 0))]
        row[labels[labels > 0] - 1] = True
    return holds


def of_classes(examples: Examples, labels: Int64Array) -> Examples:
    """The examples with these classes only, whose labels become 1..len(labels). Other classes must have no region."""
    new = np.zeros(len(examples.classes) + 1, dtype=np.int64)
    new[labels] = np.arange(1, len(labels) + 1)
    return replace(
        examples,
        labels=new[examples.labels],
        class_ious=np.ascontiguousarray(examples.class_ious[:, labels - 1]),
        classes=tuple(examples.classes[label - 1] for label in labels),
    )


def views_of(store: FeatureStore) -> tuple[bool, ...]:
    """The views of the stored features; see `FeatureConfig.views`."""
    settings = store.manifest.settings["extraction"]["features"]
    return from_json(settings, FeatureConfig, f"{store.path}: features").views
