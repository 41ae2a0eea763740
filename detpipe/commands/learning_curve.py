"""`detpipe learning-curve`: accuracy against the number of training images -> learning_curve.json, .html."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from detpipe.classify.classifier_folder import DESCRIPTION
from detpipe.classify.features.network import FeatureClassifierSpec
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import FeatureStore
from detpipe.classify.features.stored_detector import StoredDetector, detect_stored, holds_classes, train_on
from detpipe.classify.kinds import kind_in
from detpipe.classify.settings import DetectConfig, FeatureScoringConfig
from detpipe.commands.frozen_features import stores_of_run
from detpipe.commands.learning_curve_settings import LearningCurve as Settings
from detpipe.console import RESULT
from detpipe.datasets.source import Split
from detpipe.diagnosis.bottleneck import Bottleneck, bottleneck, examine
from detpipe.heads.stored.feature_head import StoredHeadConfig
from detpipe.heads.stored.two_layers import TwoLayersConfig
from detpipe.heads.table import head_class, head_word
from detpipe.metrics.bootstrap import LEVEL, Resampled, or_none
from detpipe.metrics.learning_curve import LearningCurve, LearningPoint, PowerLaw, nested_order, over_draws, set_sizes
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.network.device import resolve_bf16
from detpipe.progress import counted, progress
from detpipe.randomness import generator_for
from detpipe.report.learning_curve_page import (
    LearningCurvePage,
    learning_curve_sentence,
    learning_curve_text,
    write_learning_curve_page,
)
from detpipe.runs.detect_settings import kept_settings
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import from_json
from detpipe.storage.manifest import plain, read_manifest
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
"""Heads on stored features always train on the CPU; `device` is for the features only."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The result. largest: the detections of each draw with all the images of the last point."""

    curve: LearningCurve
    largest: Sequence[Mapping[ImageId, Detections]]


def run(config: Settings) -> None:
    """Train heads on parts of the training images, measure them, and say what limits the detector."""
    splits = {split: annotated(config, split) for split in (Split.train, Split.test)}
    stores = stores_of_run(config, splits, config.backbone, config.precision)
    head, detect = head_of_run(config.folder, config.networks), detect_of_run(config.folder)
    truth = splits[Split.test].measured_truth
    assert truth is not None
    measured = measure(config, splits, stores, head, detect, truth)
    store = stores[Split.test]
    limits = bottleneck(
        measured.curve.points[-1].map,
        measured.curve.last_gain,
        examine(
            truth,
            {image: store.boxes[span][: detect.max_proposals] for image, span in store.spans.items()},
            measured.largest,
            shown_scales(store, splits[Split.test]),
        ),
        images=len(truth),
        resamples=config.resamples,
        seed=config.seed,
    )
    write_all(config, splits, head, measured.curve, limits)


def annotated(config: Settings, split: Split) -> Dataset:
    """Return a split. Raises ValueError if the data set lacks it, or its annotations."""
    dataset = config.data_source.load(split)
    if dataset.ground_truth is None:
        raise ValueError(f"{dataset.name}: expected annotations of the {split.value} split, got none; give boxes")
    return dataset


def measure(
    config: Settings,
    splits: Mapping[Split, Dataset],
    stores: Mapping[Split, FeatureStore],
    head: StoredHeadConfig,
    detect: DetectConfig,
    truth: Mapping[ImageId, GroundTruth],
) -> Measured:
    """Train and evaluate the heads of all draws and numbers of images.

    Raises ValueError if the training images are too few for two different numbers.
    """
    train, test = splits[Split.train], splits[Split.test]
    ids = [record.image_id for record in train.records]
    sizes = set_sizes(len(ids), config.shares)
    if len(sizes) < 2:
        raise ValueError(
            f"{train.name}: expected training images for at least two points of the curve, got {len(ids)} and "
            f"shares={config.shares}; a single point is not a curve"
        )
    bf16 = head.USES_BF16 and resolve_bf16(config.precision, CPU)
    holds = holds_classes(stores[Split.train], ids)
    detectors: list[StoredDetector] = []
    with counted("train", total=len(sizes) * config.draws, unit="heads") as count:
        for draw in range(config.draws):
            generator = generator_for(config.seed, f"learning-curve/{draw}")
            order = nested_order(holds, sizes[0], generator)
            start = int(generator.integers(2**31))
            for size in sizes:
                images = [ids[index] for index in order[:size]]
                settings = with_equal_steps(head, size, sizes[-1])
                detectors.append(train_on(stores[Split.train], images, settings, seed=start, bf16=bf16))
                count.advance()
    found: list[dict[ImageId, Detections]] = [{} for _ in detectors]
    stream = detect_stored(detectors, stores[Split.test], test.records, detect)
    for image, each in progress(stream, "detect", total=len(test), unit="images"):
        for own, one in zip(found, each, strict=True):
            own[image] = one
    results = progress(found, "evaluate", total=len(found), unit="heads")
    sampled = [resampled_map(truth, one, test.classes, resamples=config.resamples, seed=config.seed) for one in results]
    points = [
        LearningPoint(size, tuple(one.value.item() for one in draws), over_draws(draws, config.seed))
        for size, draws in ((size, sampled[place :: len(sizes)]) for place, size in enumerate(sizes))
    ]
    return Measured(LearningCurve(tuple(points)), found[len(sizes) - 1 :: len(sizes)])


def with_equal_steps(head: StoredHeadConfig, images: int, most: int) -> StoredHeadConfig:
    """Return the settings with which a head takes as many steps on `images` images as on `most`.

    Else small sets would be trained too briefly, and more labels would seem to help more than they do.
    """
    return replace(head, passes=head.passes * most / images) if isinstance(head, TwoLayersConfig) else head


def head_of_run(folder: RunFolder, networks: int) -> StoredHeadConfig:
    """Return the settings of the run's head if it is on stored features, else the settings of head=two_layers."""
    head: StoredHeadConfig = TwoLayersConfig()
    if has_stored_head(folder):
        settings = read_manifest(folder.classifier).settings
        head = from_json(dict(settings["settings"]), head_class(settings["head"]), f"{folder.classifier}: settings")
    return replace(head, networks=networks) if isinstance(head, TwoLayersConfig) else head


def detect_of_run(folder: RunFolder) -> DetectConfig:
    """Return the settings of the run's detections if its head is on stored features, else rcnn_frozen's.

    Regions are not rescored after box refinement, because this reads the images again.
    """
    if has_stored_head(folder):
        return replace(kept_settings(folder.classifier).detect, features=FeatureScoringConfig(), dedup_step=0)
    return DetectConfig(vote_iou=0.5)


def has_stored_head(folder: RunFolder) -> bool:
    """Return whether the run has a classifier, and this is a head on stored features."""
    path = folder.classifier
    return (path / DESCRIPTION).is_file() and kind_in(path).name == FeatureClassifierSpec.KIND


def shown_scales(store: FeatureStore, dataset: Dataset) -> dict[ImageId, float]:
    """Return the factor from an image's pixels to the pixels of the largest image that the network was run on.

    1 if the features are of crops only.
    """
    sides = from_json(store.manifest.settings["extraction"]["features"], FeatureConfig, str(store.path)).image_sides
    return {one.image_id: max(sides) / min(one.image_size) if sides else 1.0 for one in dataset.records}


def write_all(
    config: Settings,
    splits: Mapping[Split, Dataset],
    head: StoredHeadConfig,
    curve: LearningCurve,
    limits: Bottleneck,
) -> None:
    """Write the numbers and the page, and print the table and the conclusion."""
    json_file, html_file = (config.folder.path / f"learning_curve.{kind}" for kind in ("json", "html"))
    sentence = learning_curve_sentence(curve, limits)
    write_json(
        json_file,
        {
            "test_images": len(splits[Split.test]),
            "resamples": config.resamples,
            "seed": config.seed,
            "level": LEVEL,
            "head": {"name": head_word(head), **plain(head)},
            "points": [
                {"images": point.images, "map": interval_values(point.map), "draws": list(map(or_none, point.draws))}
                for point in curve.points
            ],
            "last_doubling": interval_values(curve.last_gain),
            "power_law": power_law_values(curve.power_law),
            "gains": {lever.value: interval_values(gain) for lever, gain in limits.gains.items()},
            "proposal_recall": interval_values(limits.proposal_recall),
            "sizes": [
                {"name": one.name, "objects": one.objects, "side": one.side, "found": interval_values(one.found)}
                for one in limits.sizes
            ],
            "conclusion": limits.best.value if limits.best is not None else None,
            "certain": limits.certain,
            "as_good": [lever.value for lever in limits.as_good],
            "sentence": sentence,
        },
    )
    page = LearningCurvePage(
        subtitle=splits[Split.test].name,
        curve=curve,
        limits=limits,
        draws=config.draws,
        resamples=config.resamples,
        head=head_word(head),
    )
    write_learning_curve_page(html_file, page)
    logger.log(RESULT, "\n%s\n%s", learning_curve_text(curve), sentence)
    logger.log(RESULT, "learning-curve: %d trainings -> %s, %s", len(curve.points) * config.draws, json_file, html_file)


def interval_values(one: Resampled) -> dict[str, float | None]:
    """Return value, low and high of a single column for JSON."""
    return {name: or_none(value) for name, value in zip(("value", "low", "high"), _numbers(one), strict=True)}


def _numbers(one: Resampled) -> tuple[float, float, float]:
    low, high = one.interval
    return one.value.item(), low.item(), high.item()


def power_law_values(law: PowerLaw | str) -> dict[str, Any]:
    """Return the power law for JSON, or why there is none."""
    if isinstance(law, str):
        return {"fitted": False, "why": law}
    return {"fitted": True, "scale": interval_values(law.scale), "exponent": interval_values(law.exponent)}
