"""Small sets of labelled regions that heads learn from: classes that lie apart."""

from __future__ import annotations

import numpy as np

from detpipe.heads.stored.feature_head import Examples


def clusters(classes: int = 2, each: int = 30, background: int = 60, width: int = 8, seed: int = 0) -> Examples:
    """Class k about 4 times the k-th axis, the background about 0, a little noise on all; IoU 0.8 with its object."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes + 1), [background, *[each] * classes]).astype(np.int64)
    features = generator.normal(0, 0.5, (len(labels), width)).astype(np.float32)
    overlaps = np.zeros((len(labels), classes), dtype=np.float32)
    for label in range(1, classes + 1):
        features[labels == label, label - 1] += 4
        overlaps[labels == label, label - 1] = 0.8
    return Examples(
        features=features,
        geometry=generator.normal(0, 1, (len(labels), 3)).astype(np.float32),
        labels=labels,
        ious=overlaps.max(axis=1),
        deltas=np.where(labels[:, None] > 0, features[:, :4] * 0.1, 0).astype(np.float32),
        class_ious=overlaps,
        classes=tuple("abcdefgh"[:classes]),
    )


def first_classes(examples: Examples, count: int) -> Examples:
    """The same regions where only the first classes are known: those of the others are background."""
    labels = np.where(examples.labels > count, 0, examples.labels)
    overlaps = examples.class_ious[:, :count]
    return Examples(
        features=examples.features,
        geometry=examples.geometry,
        labels=labels,
        ious=overlaps.max(axis=1),
        deltas=np.where(labels[:, None] > 0, examples.deltas, 0).astype(np.float32),
        class_ious=overlaps,
        classes=examples.classes[:count],
    )
