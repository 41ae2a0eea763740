"""Scores of the test regions from their stored features, without reading images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from detpipe.classify.classifier_folder import read_kind
from detpipe.classify.detect import ScoredRegions, of_readable, refuse_best_box
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.features.scorer import extractor_of, refined, score_features
from detpipe.classify.features.store import open_store
from detpipe.classify.kinds import load_classifier
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.source import Split
from detpipe.network.device import resolve_device
from detpipe.runs.command import Command
from detpipe.storage.manifest import ArtefactError
from detpipe.structures import Float32Array, Image, ImageRecord

logger = logging.getLogger(__name__)

ReadRegions = Callable[[Sequence[ImageRecord]], Iterator[tuple[Image, Float32Array] | None]]
"""Reads images with their regions; gives None for an unreadable image."""
Scores = tuple[Float32Array, ScoredRegions, tuple[int, int]]
"""The regions (R, 4) of an image, their scores, and the image's (height, width)."""


def stored_scores(
    config: Command, detect: DetectConfig, proposals: str, images: ReadRegions, *, bf16: bool
) -> Callable[[Sequence[ImageRecord]], Iterator[Scores | None]] | None:
    """Return a function from images to scored regions if the run folder has the features of these regions; else None.

    proposals: the digest of those that are to be classified. images: reads images with their regions; only
    detect.features.refine needs it. bf16: the precision of detection. The classifier and the store must have features
    of the same kind and of this precision, and the store at least detect.max_proposals of an image.
    Raises FeatureStoreError for a damaged store, ClassifierError for a damaged classifier, and as `refuse_best_box`.
    """
    if read_kind(config.folder.classifier) != FeatureClassifierSpec.KIND:
        return None
    refuse_best_box(detect)
    network, spec = load_classifier(config.folder.classifier)
    assert isinstance(network, FeatureClassifier)
    assert isinstance(spec, FeatureClassifierSpec)
    try:
        store = open_store(config.folder.features(Split.test))
    except ArtefactError:  # missing or unfinished
        return None
    settings = store.manifest.settings
    device = resolve_device(config.device)
    same = settings["extraction"] == spec.extraction and store.manifest.inputs.get("proposals") == proposals
    same = same and bf16 == bool(spec.extraction["bf16"])
    if not same or int(settings["regions"]["max_proposals"]) < detect.max_proposals:
        logger.info("detect: %s has other regions or features; computing the features again", store.path)
        return None
    logger.debug("detect: takes the features of the regions from %s", store.path)
    extractor = extractor_of(network, spec, detect, device, bf16=bf16)

    def stored(record: ImageRecord) -> tuple[Float32Array, ScoredRegions]:
        rows = store.spans.get(record.image_id, slice(0, 0))  # an unreadable image has no rows
        rows = slice(rows.start, min(rows.stop, rows.start + detect.max_proposals))
        scored = score_features(
            network.head, np.asarray(store.features[rows], dtype=np.float32), store.geometry[rows], spec.features.views
        )
        return store.boxes[rows], scored

    def score_once(records: Sequence[ImageRecord]) -> Iterator[Scores]:
        for record in records:
            yield (*stored(record), record.image_size)

    def score_refined(records: Sequence[ImageRecord]) -> Iterator[Scores | None]:
        read = zip(records, images(records), strict=True)
        first = ((one[0], *stored(record)) if one is not None else None for record, one in read)
        again = of_readable(lambda some: refined(some, network.head, extractor, detect.features.refine), first)
        for record, scored in zip(records, again, strict=True):
            if scored is None:
                yield None
            else:
                assert scored.boxes is not None
                yield scored.boxes, scored, record.image_size

    return score_refined if detect.features.refine else score_once
