"""`detpipe features`: compute and store the features of regions: proposals and objects -> features/."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.backbone.create import create_from_seed, written_out
from detpipe.backbone.settings import NONE
from detpipe.backbone.trial import try_backbone
from detpipe.classify.features.extractor import RegionFeatures, network_digest
from detpipe.classify.features.store import (
    GROUP,
    FeatureStore,
    FeatureStoreError,
    ImageRegions,
    fill_store,
    merge_stores,
    missing_regions,
    open_store,
)
from detpipe.classify.labeling import sample_regions
from detpipe.commands.stage_settings import Features
from detpipe.commands.tasks import held_shards, making_shard, run_tasks
from detpipe.console import RESULT
from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import Split
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.plugins import package_versions
from detpipe.proposals.proposals_db import ProposalsReader
from detpipe.randomness import generator_for
from detpipe.runs.dataset_record import explainer, remember
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.region_plans import class_ious, nearest_indices, unlabelled
from detpipe.runs.run_folder import dataset_digest, load_splits
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.storage.backup import backup_path, keep_backup
from detpipe.storage.manifest import Artefact, ArtefactError, plain
from detpipe.storage.shards import Shards
from detpipe.structures import Dataset, ImageRecord

logger = logging.getLogger(__name__)

ESTIMATED_IMAGES = 2
"""Number of images on which the total time is estimated."""


def run(config: Features) -> None:
    """Compute the features of sampled regions of the training images, and of the best proposals of the test images."""
    splits = load_splits(config.data_source)
    train = splits.get(Split.train)
    if train is None or train.ground_truth is None:
        raise ValueError("features: expected a train split with annotations, got none; name it in the dataset settings")
    extractor = make_extractor(config)
    chosen = [split for split in (Split.train, Split.test) if split in splits]
    if config.task is not None:
        for split in chosen:
            make_shard(config, extractor, open_split(config.folder.proposals, split, splits[split]))
    elif config.tasks is not None:
        make_in_tasks(
            config, extractor, [open_split(config.folder.proposals, split, splits[split]) for split in chosen]
        )
    else:
        for split in chosen:
            make_store(config, extractor, split, splits[split])


def make_extractor(config: Features) -> RegionFeatures:
    """Return the frozen network that computes the features."""
    device = resolve_device(config.device)
    try_backbone(config.backbone, (config.crops.size, config.crops.size), "crops.size")
    if config.backbone.weights == NONE:
        logger.warning(
            "backbone.weights=none: the features come from a network with random weights, which is never trained; "
            "set backbone.weights=imagenet or backbone.weights=FILE"
        )
    backbone = create_from_seed(replace(written_out(config.backbone), input_size=config.crops.size), config.seed)
    return RegionFeatures(
        backbone,
        config.crops,
        config.features,
        device=device,
        bf16=resolve_bf16(config.precision, device),
        batch_size=config.detect.batch_size,
    )


def make_store(config: Features, extractor: RegionFeatures, split: Split, dataset: Dataset) -> None:
    """Make the store of one split. Features that an earlier store of the same network has are reused."""
    stored = open_split(config.folder.proposals, split, dataset)
    artefact = store_artefact(config, extractor, stored)
    if config.overwrite:
        keep_backup(artefact)
    with artefact.making(overwrite=config.overwrite) as making:
        keep_dataset(config.folder, config.data_source)
        if making.needed:
            remember(config.folder, [dataset])
            before = earlier_stores(artefact)
            plan = list(planned_regions(config, stored))
            estimate(extractor, plan, before)
            making.summary = fill_store(artefact.path, plan, extractor, before=before, classes=len(dataset.classes))
    finish(artefact, split)


def finish(artefact: Artefact, split: Split) -> None:
    """Delete the backup of an earlier store, and log the result."""
    shutil.rmtree(backup_path(artefact.path), ignore_errors=True)
    summary = artefact.manifest.summary
    logger.log(
        RESULT,
        "features: %d regions of %d %s images, %d of them reused, %d MB, in %.1f s -> %s",
        summary["regions"],
        summary["images"],
        split.value,
        summary["taken_over"],
        summary["megabytes"],
        artefact.manifest.seconds,
        artefact.path,
    )


def make_shard(config: Features, extractor: RegionFeatures, stored: StoredSplit) -> None:
    """Compute the features of the images of one task."""
    whole = store_artefact(config, extractor, stored)
    with making_shard(config, whole) as (making, shards):
        if making.needed:
            # Whole groups: so the batches are the same as with one process.
            own = shards.own(images_with_proposals(stored), config.task, step=GROUP)
            plan = list(planned_regions(config, stored, own))
            classes = len(stored.dataset.classes)
            making.summary = fill_store(making.path, plan, extractor, before=earlier_stores(whole), classes=classes)


def make_in_tasks(config: Features, extractor: RegionFeatures, splits: Sequence[StoredSplit]) -> None:
    """Make the stores of these splits by tasks."""
    artefacts = [store_artefact(config, extractor, stored) for stored in splits]
    if config.overwrite:
        for artefact in artefacts:
            keep_backup(artefact)
    with held_shards(config, *artefacts) as all_shards, ExitStack() as stack:
        # All of them begin before the tasks, which are refused where an old store is in their place.
        makings = [stack.enter_context(artefact.making(overwrite=config.overwrite)) for artefact in artefacts]
        keep_dataset(config.folder, config.data_source)
        needed = [one for one in zip(splits, makings, all_shards, strict=True) if one[1].needed]
        if needed:
            remember(config.folder, [stored.dataset for stored, _, _ in needed])
            parts = [shards.parts(images_with_proposals(stored), step=GROUP) for stored, _, shards in needed]
            sizes = [sum(map(len, of_task)) for of_task in zip(*parts, strict=True)]
            run_tasks(config, "features", [shards for _, _, shards in needed], sizes)
        for stored, making, shards in needed:
            making.summary = merge_stores(making.path, opened_shards(shards), len(stored.dataset.classes))
    for stored, artefact in zip(splits, artefacts, strict=True):
        finish(artefact, stored.split)


def opened_shards(shards: Shards) -> list[FeatureStore]:
    """Return the stores of all tasks. Raises ShardError for a missing or damaged one."""
    stores = []
    for task in range(1, shards.tasks + 1):
        path = shards.finished(task)
        try:
            stores.append(open_store(path))
        except (ArtefactError, FeatureStoreError) as error:
            raise shards.damaged(task, error) from error
    return stores


def images_with_proposals(stored: StoredSplit) -> list[ImageRecord]:
    """Return the images that were readable when their boxes were proposed."""
    with ProposalsReader(stored.path) as reader:
        return [one for one in stored.dataset.records if (stored.split.value, one.image_id) in reader]


def store_artefact(config: Features, extractor: RegionFeatures, stored: StoredSplit) -> Artefact:
    """Return the artefact of the store with its key: the settings of regions and of features."""
    trained = stored.split is Split.train
    extraction = extraction_key(config, extractor)
    return Artefact(
        config.folder.features(stored.split),
        stage="features",
        settings={
            "extraction": extraction,
            "regions": plain(config.sampling) if trained else {"max_proposals": config.detect.max_proposals},
            "seed": config.seed,
            "classes": stored.dataset.classes,
            "category_ids": stored.dataset.category_ids,
        },
        inputs={
            "proposals": stored.manifest.digest,
            stored.split.value: dataset_digest(stored.dataset),
            **package_versions(plain(extraction)),
        },
        explain=explainer(config.folder, {stored.split.value: stored.dataset}),
    )


def extraction_key(config: Features, extractor: RegionFeatures) -> dict[str, Any]:
    """Return the settings that change a region's features. The encoding of stored crops does not."""
    crops = {name: value for name, value in plain(config.crops).items() if name not in ("encoding", "jpeg_quality")}
    return {
        "network": network_digest(extractor.backbone),
        "backbone": config.backbone.name,
        "crops": crops,
        "features": plain(config.features),
        "bf16": extractor.bf16,
        "device": extractor.device.type,
    }


def earlier_stores(artefact: Artefact, *others: Path) -> list[FeatureStore]:
    """Return the backup of the earlier store and other stores, of which the features were made with the same settings.

    Missing, unfinished and damaged ones are left out: their features are computed.
    """
    found = []
    for path in (backup_path(artefact.path), *others):
        try:
            store = open_store(path)
        except (ArtefactError, FeatureStoreError):
            continue
        if store.manifest.settings["extraction"] == artefact.manifest.settings["extraction"]:
            found.append(store)
    return found


def planned_regions(
    config: Features, stored: StoredSplit, records: Sequence[ImageRecord] | None = None
) -> Iterator[ImageRegions]:
    """Yield the regions of each image, in order: a pure function of proposals, objects, settings and seed.

    records: images of the split; default, all.
    """
    for record, proposed in stored.read(records):
        if proposed is None:  # unreadable, already logged by propose
            continue
        truth = stored.dataset.ground_truth[record.image_id] if stored.dataset.ground_truth is not None else None
        if stored.split is Split.train:
            assert truth is not None
            generator = generator_for(config.seed, record.image_id)
            regions = sample_regions(proposed.proposals.boxes, truth, proposed.image_size, config.sampling, generator)
            overlaps = class_ious(regions.boxes, truth, len(stored.dataset.classes))
            ranks = nearest_indices(regions.boxes, proposed.proposals.boxes)
        else:
            regions = unlabelled(proposed.proposals.boxes[: config.detect.max_proposals])
            overlaps = np.zeros((len(regions), len(stored.dataset.classes)), dtype=np.float32)
            ranks = np.arange(len(regions))
        yield ImageRegions(record, proposed.image_digest, regions, overlaps, ranks)


def estimate(extractor: RegionFeatures, plan: Sequence[ImageRegions], before: Sequence[FeatureStore]) -> None:
    """Log the expected size and time, measured on the first images. Logs nothing if no feature is missing."""
    missing = missing_regions(plan, before)
    if not missing:
        return
    probe = missing[:ESTIMATED_IMAGES]
    images = [(read_image(image.record.path, image.record.options), image.regions.boxes) for image in probe]
    list(extractor.features(images[:1]))  # warm-up
    begun = time.perf_counter()
    timed = sum(map(len, extractor.features(images)))
    seconds = time.perf_counter() - begun
    rows, wanted = (sum(len(image.regions) for image in images) for images in (plan, missing))
    logger.info(
        "features: %d regions of %d images, %d of them to compute: about %.0f MB, %.0f s",
        rows,
        len(plan),
        wanted,
        rows * extractor.width * 2 / 1e6,
        wanted * seconds / timed,
    )
