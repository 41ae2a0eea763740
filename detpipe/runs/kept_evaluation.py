"""The measured quality of a run's detector, kept with the classifier for its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled, or_none
from detpipe.metrics.evaluate import Metrics
from detpipe.metrics.map_bootstrap import hits_by_class, mean_of_classes, resampled_aps
from detpipe.runs.kept_file import keep, kept
from detpipe.runs.run_folder import dataset_digest
from detpipe.structures import Dataset, Detections, ImageId

FILE = "evaluation.json"
"""The file in the classifier's folder. A new classifier has none until it is evaluated."""
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number and its 95 % interval over resamples of the images. None where it does not exist."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, resampled: Resampled) -> list[Measured]:
        """One for each column."""
        columns = zip(resampled.value.tolist(), *(end.tolist() for end in resampled.interval), strict=True)
        return [cls(value=or_none(value), low=or_none(low), high=or_none(high)) for value, low, high in columns]


@dataclass(frozen=True, kw_only=True)
class KeptEvaluation:
    """The content of evaluation.json. dataset, digest: the evaluated data set, with `images` images.

    objects: of each class, difficult ones and crowds left out. map, per_class: VOC 2010's AP at IoU 0.5. coco: COCO's
    twelve numbers.
    """

    dataset: str
    digest: str
    images: int
    objects: dict[str, int]
    map: Measured
    per_class: dict[str, Measured]
    coco: dict[str, float | None]


def evaluation_of(
    dataset: Dataset, detections: Mapping[ImageId, Detections], metrics: Metrics, *, seed: int
) -> KeptEvaluation | None:
    """What was measured, with intervals; None for a data set without annotations. seed: of the resamples."""
    truth = dataset.measured_truth
    if truth is None:
        return None
    hits = hits_by_class(truth, detections, len(dataset.classes))
    aps = resampled_aps(hits, ImageBootstrap.draw(len(truth), RESAMPLES, seed))
    return KeptEvaluation(
        dataset=dataset.name,
        digest=dataset_digest(dataset),
        images=len(dataset),
        objects={name: int(np.sum(one.objects)) for name, one in zip(dataset.classes, hits, strict=True)},
        map=Measured.of(mean_of_classes(aps))[0],
        per_class=dict(zip(dataset.classes, Measured.of(aps), strict=True)),
        coco={name: or_none(value) for name, value in metrics.coco.numbers.items()},
    )


def keep_evaluation(classifier: Path, evaluation: KeptEvaluation | None) -> None:
    """Write the evaluation into a classifier's folder. None deletes an earlier one; no classifier: nothing."""
    keep(classifier, FILE, KeptEvaluation, evaluation)


def kept_evaluation(classifier: Path) -> KeptEvaluation | None:
    """The evaluation in a classifier's folder; None if the classifier was not evaluated.

    Raises ClassifierError, which names the file and the key, for a damaged file.
    """
    return kept(classifier, FILE, KeptEvaluation)
