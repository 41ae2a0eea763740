"""Two runs on the same images: the difference of their mAP, and which objects changed from which cause to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from detpipe.diagnosis.causes import Miss
from detpipe.diagnosis.result import ChangedObject, Comparison, Estimate
from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.paired_difference import paired_difference
from detpipe.structures import GroundTruth, ImageId

FOUND = "found"
"""The outcome of an object that is not missed."""


def compare(
    truth: Mapping[ImageId, GroundTruth],
    classes: Sequence[str],
    *,
    misses: Sequence[Miss],
    map_samples: Resampled,
    other: str,
    other_threshold: float,
    other_misses: Sequence[Miss],
    other_map: Resampled,
) -> Comparison:
    """Compare this run with another one. Both must be of the same images and objects, with the same resamples.

    other: its run folder. map_samples, other_map: VOC 2010's mAP@0.5 as one column. Each run has its own threshold.
    Raises ValueError if the numbers of resamples differ.
    """
    now = {(one.image, one.object): one.cause.value for one in misses}
    before = {(one.image, one.object): one.cause.value for one in other_misses}
    changes: Counter[tuple[str, str]] = Counter()
    changed = []
    for image_id, gt in truth.items():
        for index in np.flatnonzero(~gt.difficult & ~gt.crowd).tolist():
            pair = (before.get((image_id, index), FOUND), now.get((image_id, index), FOUND))
            changes[pair] += 1
            if pair[0] != pair[1]:
                label = classes[gt.labels[index] - 1]
                changed.append(ChangedObject(image=image_id, object=index, label=label, before=pair[0], after=pair[1]))
    paired = paired_difference(map_samples, other_map)
    return Comparison(
        other=other,
        other_threshold=other_threshold,
        other_map=Estimate.of(other_map),
        difference=Estimate.of(paired.difference),
        p=float(paired.p[0]),
        changes=dict(changes.most_common()),
        objects=changed,
    )
