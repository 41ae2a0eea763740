"""Detections from the stored features of the test regions: no image is read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from detpipe.classify.classifier_folder import read_description
from detpipe.classify.detect import DetectConfig, select_detections
from detpipe.classify.feature_store import open_store
from detpipe.classify.frozen_classifier import KIND, load_frozen, score_features
from detpipe.commands.command import Command
from detpipe.datasets.source import Split
from detpipe.storage.manifest import ArtefactError
from detpipe.structures import Detections, ImageRecord

logger = logging.getLogger(__name__)


def stored_detections(
    config: Command, detect: DetectConfig, proposals: str
) -> Callable[[Sequence[ImageRecord]], Iterator[Detections]] | None:
    """From images to their detections, where the run folder has the features of just these regions; else None.

    proposals: the digest of those that are to be classified. The classifier must stand on features of the same kind,
    and the store must hold as many proposals of an image as `detect` looks at, or more.
    Raises FeatureStoreError for a damaged store, ClassifierError for a damaged classifier.
    """
    if read_description(config.folder.classifier).get("kind") != KIND:
        return None
    network, spec = load_frozen(config.folder.classifier)
    try:
        store = open_store(config.folder.features(Split.test))
    except ArtefactError:  # none, or an unfinished one
        return None
    settings = store.manifest.settings
    held = int(settings["regions"]["max_proposals"])
    same = settings["extraction"] == spec.extraction and store.manifest.inputs.get("proposals") == proposals
    if not same or held < detect.max_proposals:
        logger.info("detect: %s holds other regions or features; they are computed", store.path)
        return None

    def find(records: Sequence[ImageRecord]) -> Iterator[Detections]:
        for record in records:
            rows = store.spans.get(record.image_id, slice(0, 0))  # of an unreadable image there are none
            rows = slice(rows.start, min(rows.stop, rows.start + detect.max_proposals))
            features = np.asarray(store.features[rows], dtype=np.float32)
            scored = score_features(network.head, features, store.geometry[rows], spec.features.views)
            yield select_detections(store.boxes[rows], scored, record.image_size, detect)

    return find
