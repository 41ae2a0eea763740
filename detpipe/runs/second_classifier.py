"""The second classifier of a run, which looks for objects without a label: from stored or from computed features."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import nn

from detpipe.backbone.backbone import Backbone
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.features.extractor import RegionFeatures
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import FeatureStore, FeatureStoreError, open_store
from detpipe.classify.kinds import load_classifier
from detpipe.classify.labeling import SamplingConfig, sample_regions
from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.datasets.source import Split
from detpipe.diagnosis.false_detections import FalseDetection
from detpipe.diagnosis.second_opinion import (
    SECOND,
    LabelledImage,
    examples_from_images,
    examples_from_store,
    scores_from_images,
    scores_from_store,
    train_second,
)
from detpipe.diagnosis.settings import SecondOpinion
from detpipe.heads.stored.feature_head import Examples
from detpipe.network.device import resolve_device
from detpipe.progress import counted
from detpipe.randomness import generator_for
from detpipe.runs.command import Command
from detpipe.runs.region_plans import class_ious
from detpipe.runs.stored_split import open_split
from detpipe.storage.manifest import ArtefactError
from detpipe.structures import Dataset, Image, ImageId

logger = logging.getLogger(__name__)

TRAIN_IMAGES = 100
"""Training images whose features are computed, chosen at random, where none are stored."""
SIDE = 320
"""The shorter side in pixels of the images whose features are computed."""
SAMPLING = SamplingConfig(regions_per_image=32, jittered=4)
"""Training regions of an image whose features are computed."""

Scores = dict[tuple[ImageId, int], float]
"""By image and index of the detection."""


def ask_second(
    config: Command, mode: SecondOpinion, dataset: Dataset, asked: Sequence[FalseDetection]
) -> tuple[Scores, str]:
    """Return the second classifier's scores of questioned detections, and a sentence about it.

    dataset: the test split. Without a second classifier there are no scores, and the sentence says why.
    """
    if mode is SecondOpinion.none:
        return {}, "No second classifier was asked (second_opinion=none), so no detection counts as unlabelled."
    stores = _stores(config, dataset)
    if stores is not None:
        train, test = stores
        head = train_second(examples_from_store(train, seed=config.seed))
        scores = scores_from_store(head, test, asked)
        return scores, _sentence(scores, asked, "stored features")
    if mode is SecondOpinion.stored:
        return {}, (
            "The run has no stored features, so no detection counts as unlabelled; second_opinion=auto computes some."
        )
    try:
        return _computed(config, dataset, asked)
    except (ArtefactError, ClassifierError, ValueError) as error:
        return {}, f"There is no second classifier, so no detection counts as unlabelled: {error}"


def _sentence(scores: Mapping[tuple[ImageId, int], float], asked: Sequence[FalseDetection], what: str) -> str:
    confirmed = sum(score >= SECOND for score in scores.values())
    return (
        f"A second classifier on {what}, which never saw these images, was asked about {len(asked)} confident "
        f"detections on background, and finds an object in {confirmed}."
    )


def _stores(config: Command, dataset: Dataset) -> tuple[FeatureStore, FeatureStore] | None:
    """The stores of training and test images, if both are there, of the same features and of these classes."""
    try:
        train, test = (open_store(config.folder.features(split)) for split in (Split.train, Split.test))
    except (ArtefactError, FeatureStoreError) as error:
        logger.info("second opinion: no stored features: %s", error)
        return None
    same = train.manifest.settings["extraction"] == test.manifest.settings["extraction"]
    return (train, test) if same and train.classes == test.classes == dataset.classes else None


def _computed(config: Command, dataset: Dataset, asked: Sequence[FalseDetection]) -> tuple[Scores, str]:
    """The scores from features of the run's own network, for a sample of the training images."""
    begun = time.perf_counter()
    source = config.data_source
    if not all(record.has_file for record in dataset.records):
        raise ValueError("it needs the image files")
    train = source.load(Split.train) if source.has(Split.train) else None
    if train is None or train.ground_truth is None:
        raise ValueError("it needs a train split with annotations")
    network, _ = load_classifier(config.folder.classifier)
    extractor = RegionFeatures(
        _backbone_of(network),
        CropConfig(),
        FeatureConfig(crops=False, image_sides=[SIDE]),
        device=resolve_device(config.device),
        bf16=False,
    )
    head = train_second(_computed_examples(config, train, extractor))
    by_image: dict[ImageId, list[FalseDetection]] = {}
    for one in asked:
        by_image.setdefault(one.image, []).append(one)

    def images() -> Iterator[tuple[Image, Sequence[FalseDetection]]]:
        for record in dataset.records:
            if record.image_id in by_image:
                yield read_image(record.path, record.options), by_image[record.image_id]

    scores = scores_from_images(head, extractor, images(), dataset.classes)
    what = f"features computed in {time.perf_counter() - begun:.0f} s"
    return scores, _sentence(scores, asked, what)


def _computed_examples(config: Command, train: Dataset, extractor: RegionFeatures) -> Examples:
    truth = train.ground_truth
    assert truth is not None
    order = generator_for(config.seed, "second opinion").permutation(len(train))[:TRAIN_IMAGES]
    records = [train.records[index] for index in np.sort(order).tolist()]
    stored = open_split(config.folder.proposals, Split.train, train)

    def images() -> Iterator[LabelledImage]:
        with counted("second opinion", total=len(records), unit="images") as count:
            for record, proposed in stored.read(records):
                count.advance()
                if proposed is None:
                    continue
                try:
                    image = read_image(record.path, record.options)
                except (BrokenImageError, OSError) as error:
                    logger.warning("second opinion: %s", error)
                    continue
                own, generator = truth[record.image_id], generator_for(config.seed, record.image_id)
                regions = sample_regions(
                    proposed.proposals.boxes, own, (image.shape[0], image.shape[1]), SAMPLING, generator
                )
                yield LabelledImage(image, regions, class_ious(regions.boxes, own, len(train.classes)))

    return examples_from_images(extractor, images(), train.classes, seed=config.seed)


def _backbone_of(network: nn.Module) -> Backbone:
    backbone = getattr(network, "backbone", None) or getattr(getattr(network, "detector", None), "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ValueError(f"it needs a backbone, and {type(network).__name__} has none")
    return backbone
