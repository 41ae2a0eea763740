"""Objects that may lack a label: confident background detections that a second classifier confirms.

The detector alone can't tell: its errors on background are confident, too. The second classifier is a softmax
regression on the features of a frozen network. It is trained on regions of the training images only, so it never saw
the image. A detection of the type `background` becomes `unlabelled` if

- its score is at least `confident_score`, and
- the second classifier gives the region at least `SECOND` for the same class.

R: regions. D: feature width. K: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions
from detpipe.classify.features.geometry import COLUMNS, region_geometry
from detpipe.classify.features.scorer import score_features
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import Extractor, FeatureStore
from detpipe.classify.labeling import Regions
from detpipe.diagnosis.causes import BACKGROUND, FOREGROUND, above
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.heads.region_head import BoxRegression
from detpipe.heads.stored.feature_head import Examples, FeatureHead
from detpipe.heads.stored.softmax_regression import SoftmaxRegressionConfig
from detpipe.metrics.matching import match_detections
from detpipe.randomness import generator_for
from detpipe.storage.dataclass_json import from_json
from detpipe.structures import Detections, Float32Array, GroundTruth, Image, ImageId, Int64Array

SECOND = 0.5
"""The smallest score of the second classifier: the class is then more probable than all others together."""
PRECISION = 0.8
"""The share of right detections from which on the detector is called confident."""
EXAMPLES = 3000
"""Training regions of the second classifier, half of them background. It trains in a few seconds."""
ITERATIONS = 40
"""Largest number of L-BFGS iterations."""
BACKGROUND_BELOW = 0.3
"""Training regions whose IoU with every object is below this are background."""


def confident_score(
    truth: Mapping[ImageId, GroundTruth], detections: Mapping[ImageId, Detections], threshold: float
) -> float:
    """The lowest score, from the threshold on, at which at least PRECISION of the detections near an object are right.

    Near an object means an IoU of at least 0.1 with one of any class. Detections on background are not counted: some of
    them may be right. Without such a score it is infinity.
    """
    scores, right = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
    for image_id, gt in truth.items():
        found = above(detections[image_id], threshold)
        matches = match_detections(gt, found, iou_threshold=FOREGROUND)
        near = (geometry.iou(found.boxes, gt.boxes) >= BACKGROUND).any(axis=1) & ~matches.ignored
        scores.append(found.scores[near])
        right.append(matches.true_positive[near])
    all_scores = np.concatenate(scores)
    order = np.argsort(-all_scores.astype(np.float64), kind="stable")
    precision = np.cumsum(np.concatenate(right)[order]) / np.arange(1, len(order) + 1)
    # A threshold can't separate equal scores.
    last = np.append(np.diff(all_scores[order]) < 0, True)[: len(order)]
    good = np.flatnonzero((precision >= PRECISION) & last)
    return float(all_scores[order][good[-1]]) if len(good) else float("inf")


def questioned(wrong: Sequence[FalseDetection], confident: float) -> list[FalseDetection]:
    """The background detections with at least this score, which the second classifier is asked about."""
    return [one for one in wrong if one.type is FalseType.background and one.score >= np.float32(confident)]


def with_second_opinion(
    wrong: Sequence[FalseDetection], scores: Mapping[tuple[ImageId, int], float]
) -> list[FalseDetection]:
    """The false detections with the scores of the second classifier, and `unlabelled` where it confirms them.

    scores: by image and index of the detection.
    """
    found = []
    for one in wrong:
        score = scores.get((one.image, one.detection))
        if score is not None:
            kind = FalseType.unlabelled if score >= SECOND else one.type
            one = replace(one, second_score=score, type=kind)
        found.append(one)
    return found


def train_second(examples: Examples) -> FeatureHead:
    """The second classifier. Raises ValueError if no region shows an object."""
    examples.check_any_positives()
    settings = SoftmaxRegressionConfig(
        box_regression=BoxRegression.none, iterations=ITERATIONS, background_iou=BACKGROUND_BELOW
    )
    return settings.train(examples, seed=0)


def examples_from_store(store: FeatureStore, *, seed: int) -> Examples:
    """At most EXAMPLES regions of a store of training images, as they are, not mirrored."""
    rows = sampled_rows(store.labels, store.class_ious, seed=seed)
    width = store.features.shape[1] // len(stored_views(store))
    return Examples(
        features=np.asarray(store.features[rows][:, :width], dtype=np.float32),
        geometry=store.geometry[rows],
        labels=store.labels[rows],
        ious=store.ious[rows],
        deltas=store.deltas[rows],
        class_ious=store.class_ious[rows],
        classes=store.classes,
    )


def sampled_rows(
    labels: Int64Array, class_ious: np.typing.NDArray[np.floating], *, seed: int, most: int = EXAMPLES
) -> Int64Array:
    """Rows for training, ascending: at most most / 2 of objects, and as many of background.

    labels: (R,), 0 is background. class_ious: (R, K).
    """
    generator = generator_for(seed, "second opinion")
    kept = []
    for rows in (
        np.flatnonzero(labels > 0),
        np.flatnonzero((labels == 0) & (class_ious < BACKGROUND_BELOW).all(axis=1)),
    ):
        chosen = generator.permutation(len(rows))[: most // 2]
        kept.append(rows[np.sort(chosen)])
    return np.sort(np.concatenate(kept)).astype(np.int64)


def scores_from_store(
    head: FeatureHead, store: FeatureStore, asked: Sequence[FalseDetection]
) -> dict[tuple[ImageId, int], float]:
    """The second classifier's score of each questioned detection, from the stored features of the test images.

    The stored region with the greatest IoU stands for the detection; one with an IoU below 0.5 has no score. Images
    that the store doesn't have are left out.
    """
    width = store.features.shape[1] // len(stored_views(store))
    scores: dict[tuple[ImageId, int], float] = {}
    for one in asked:
        rows = store.spans.get(one.image, slice(0, 0))
        overlap = geometry.iou(np.array([one.box], dtype=np.float32), store.boxes[rows])[0]
        if not len(overlap) or overlap.max() < FOREGROUND:
            continue
        row = rows.start + int(overlap.argmax())
        scored = score_features(
            head, np.asarray(store.features[row : row + 1, :width]), store.geometry[row : row + 1], (False,)
        )
        scores[(one.image, one.detection)] = _own_score(scored, 0, one, store.classes)
    return scores


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """A training image with sampled regions. class_ious: (R, K), the greatest IoU with an object of each class."""

    image: Image
    regions: Regions
    class_ious: Float32Array


def examples_from_images(
    extractor: Extractor, images: Iterable[LabelledImage], classes: Sequence[str], *, seed: int
) -> Examples:
    """At most EXAMPLES regions of training images, with features that are computed now. No images give no examples."""
    held: list[LabelledImage] = []
    shapes = [np.zeros((0, COLUMNS), np.float32)]

    def read() -> Iterator[tuple[Image, Float32Array]]:
        for one in images:
            size, no_ranks = (one.image.shape[0], one.image.shape[1]), np.zeros(len(one.regions), dtype=np.int64)
            shapes.append(region_geometry(one.regions.boxes, size, no_ranks))
            held.append(replace(one, image=one.image[:0, :0]))  # the pixels are not needed again
            yield one.image, one.regions.boxes

    features = [np.zeros((0, extractor.width), dtype=np.float32), *extractor.features(read())]
    labels = np.concatenate([np.zeros(0, np.int64), *(one.regions.labels for one in held)])
    class_ious = np.concatenate([np.zeros((0, len(classes)), np.float32), *(one.class_ious for one in held)])
    rows = sampled_rows(labels, class_ious, seed=seed)
    return Examples(
        features=np.concatenate(features)[rows],
        geometry=np.concatenate(shapes)[rows],
        labels=labels[rows],
        ious=np.concatenate([np.zeros(0, np.float32), *(one.regions.ious for one in held)])[rows],
        deltas=np.concatenate([np.zeros((0, 4), np.float32), *(one.regions.deltas for one in held)])[rows],
        class_ious=class_ious[rows],
        classes=tuple(classes),
    )


def scores_from_images(
    head: FeatureHead,
    extractor: Extractor,
    images: Iterable[tuple[Image, Sequence[FalseDetection]]],
    classes: Sequence[str],
) -> dict[tuple[ImageId, int], float]:
    """The second classifier's score of each questioned detection, from the features of its box.

    images: each image with its questioned detections.
    """
    waiting: list[tuple[tuple[int, int], Sequence[FalseDetection]]] = []

    def read() -> Iterator[tuple[Image, Float32Array]]:
        for image, asked in images:
            waiting.append(((image.shape[0], image.shape[1]), asked))
            yield image, _boxes_of(asked)

    scores: dict[tuple[ImageId, int], float] = {}
    for features in extractor.features(read()):
        size, asked = waiting.pop(0)
        shape = region_geometry(_boxes_of(asked), size, np.zeros(len(asked), dtype=np.int64))
        scored = score_features(head, features, shape, (False,))
        for row, one in enumerate(asked):
            scores[(one.image, one.detection)] = _own_score(scored, row, one, classes)
    return scores


def stored_views(store: FeatureStore) -> tuple[bool, ...]:
    """For each view in the columns of a store, whether it is mirrored."""
    settings = store.manifest.settings["extraction"]["features"]
    return from_json(settings, FeatureConfig, f"{store.path}: features").views


def _boxes_of(asked: Sequence[FalseDetection]) -> Float32Array:
    return np.array([one.box for one in asked], dtype=np.float32).reshape(-1, 4)


def _own_score(scored: ScoredRegions, row: int, one: FalseDetection, classes: Sequence[str]) -> float:
    return float(scored.probabilities[row, 1 + list(classes).index(one.label)])
