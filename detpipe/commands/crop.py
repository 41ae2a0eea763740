"""`detpipe crop`: training crops from proposals and objects -> crops.lmdb, crops_val.lmdb."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from detpipe.classify.crops.database import CropsReader, CropTask, make_records, ordered_keys, shuffled_keys
from detpipe.classify.labeling import Regions, sample_regions
from detpipe.commands.stage_settings import Crop
from detpipe.commands.tasks import held_shards, keep_shards, making_shard, opened_shard, run_tasks
from detpipe.console import RESULT
from detpipe.datasets.source import Split
from detpipe.parallel import ordered_map
from detpipe.progress import counted, progress
from detpipe.randomness import generator_for
from detpipe.runs.dataset_record import explainer, remember
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.run_folder import dataset_digest
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.runs.training_images import Part, training_parts
from detpipe.storage.lmdb_store import LmdbWriter
from detpipe.storage.manifest import Artefact, Making
from detpipe.storage.shard_index import data_files
from detpipe.storage.sharded_lmdb import name_in
from detpipe.storage.sharded_lmdb import shuffled_keys as shuffled_names
from detpipe.storage.shards import Shards, forget_merge
from detpipe.structures import Dataset, ImageRecord

logger = logging.getLogger(__name__)


def run(config: Crop) -> None:
    """Label and sample the proposals of the training images, and write their crops in random order."""
    train, val = training_parts(config.data_source, config.sampling.val_share, config.seed)
    parts = ((config.folder.crops, train), (config.folder.val_crops, val))
    if config.task is not None:
        for path, part in parts:
            make_shard(config, path, part)
    elif config.tasks is not None:
        make_in_tasks(config, parts)
    else:
        for path, part in parts:
            make_crops(config, path, part.split, part.dataset, part.records)


def crops_artefact(config: Crop, path: Path, stored: StoredSplit, records: Sequence[ImageRecord]) -> Artefact:
    """Return the artefact of a database of crops with its key."""
    dataset, split = stored.dataset, stored.split
    return Artefact(
        path,
        stage="crop",
        settings={
            "sampling": config.sampling,
            "crops": config.crops,
            "seed": config.seed,
            "classes": dataset.classes,
            "category_ids": dataset.category_ids,
        },
        inputs={"proposals": stored.manifest.digest, split.value: dataset_digest(dataset), "images": str(len(records))},
        explain=explainer(config.folder, {split.value: dataset}),
    )


def make_crops(config: Crop, path: Path, split: Split, dataset: Dataset, records: Sequence[ImageRecord]) -> None:
    """Write one database of crops from the images `records` of a split."""
    stored = open_split(config.folder.proposals, split, dataset)
    artefact = crops_artefact(config, path, stored, records)
    with artefact.making(overwrite=config.overwrite) as making:
        keep_dataset(config.folder, config.data_source)
        if making.needed:
            remember(config.folder, [dataset])
            tasks = plan(config, stored, records)
            making.summary = summarize(
                path, write_crops(config, path, tasks, making), len(tasks), labels(dataset, tasks)
            )
    finish(config, path, artefact)


def summarize(path: Path, crops: int, images: int, labels: Counter[str]) -> dict[str, object]:
    """Return the summary of a database for its manifest."""
    return {"crops": crops, "images": images, "megabytes": _megabytes(path), "labels": dict(sorted(labels.items()))}


def labels(dataset: Dataset, tasks: Sequence[CropTask]) -> Counter[str]:
    """Return the number of crops of each class."""
    return Counter(name for task in tasks for name in _names(dataset, task.regions))


def finish(config: Crop, path: Path, artefact: Artefact) -> None:
    """Verify the crops if asked to, and log the result."""
    if config.verify:
        verify(path, artefact)
    summary = artefact.manifest.summary
    logger.log(
        RESULT,
        "crop: %d crops of %d images in %.1f s, %.1f MB -> %s",
        summary["crops"],
        summary["images"],
        artefact.manifest.seconds,
        summary["megabytes"],
        path,
    )


def make_shard(config: Crop, path: Path, part: Part) -> None:
    """Write the crops of the images of one task.

    Their keys count within a shard: the index of a crop in the whole depends on the number of crops of all images.
    """
    stored = open_split(config.folder.proposals, part.split, part.dataset)
    with making_shard(config, crops_artefact(config, path, stored, part.records)) as (making, shards):
        if making.needed:
            own = plan(config, stored, shards.own(part.records, config.task), in_order=True)
            write_crops(config, making.path, own, making)
            making.summary = summarize(
                making.path, sum(len(task.keys) for task in own), len(own), labels(part.dataset, own)
            )


def make_in_tasks(config: Crop, parts: Sequence[tuple[Path, Part]]) -> None:
    """Make the databases of these images by tasks."""
    splits = [open_split(config.folder.proposals, part.split, part.dataset) for _, part in parts]
    artefacts = [
        crops_artefact(config, path, stored, part.records) for (path, part), stored in zip(parts, splits, strict=True)
    ]
    with held_shards(config, *artefacts, merge=config.merge) as all_shards, ExitStack() as stack:
        # All of them begin before the tasks, which are refused where an old database is in their place.
        makings = [stack.enter_context(artefact.making(overwrite=config.overwrite)) for artefact in artefacts]
        keep_dataset(config.folder, config.data_source)
        needed = [
            (part, making, one)
            for (_, part), making, one in zip(parts, makings, all_shards, strict=True)
            if making.needed
        ]
        if needed:
            remember(config.folder, [part.dataset for part, _, _ in needed])
            images = [shards.parts(part.records) for part, _, shards in needed]
            sizes = [sum(map(len, of_task)) for of_task in zip(*images, strict=True)]
            run_tasks(config, "crop", [shards for _, _, shards in needed], sizes)
        for _, making, shards in needed:
            if config.merge:
                merge_shards(config, making.path, shards)
            else:
                keep_shards(shards, records="crops", seed=config.seed)
            making.summary = shards_summary(making.path, shards)
    for artefact in artefacts:
        finish(config, artefact.path, artefact)


def merge_shards(config: Crop, path: Path, shards: Shards) -> None:
    """Copy the crops of all shards to the keys that one process gives them.

    Raises ShardError for a missing or damaged shard.
    """
    names: list[bytes] = []
    for task, manifest in enumerate(shards.manifests(), start=1):
        with opened_shard(shards, task) as reader:
            if len(reader) != manifest.summary["crops"]:
                raise shards.damaged(task, f"{len(reader)} crops in place of {manifest.summary['crops']}")
            names += map(name_in, reader.keys())
    keys = iter(shuffled_names(names, config.seed))
    forget_merge(path)
    with LmdbWriter(path) as writer, counted("merge", total=len(names), unit="crops") as count:
        for task in range(1, shards.tasks + 1):
            with opened_shard(shards, task) as reader:
                for _, value in reader.items():
                    writer.put(next(keys), value)
                    count.advance()


def shards_summary(path: Path, shards: Shards) -> dict[str, object]:
    """Return the summary of a database that is made of these shards."""
    summaries = [manifest.summary for manifest in shards.manifests()]
    crops, images = (sum(summary[name] for summary in summaries) for name in ("crops", "images"))
    found: Counter[str] = Counter()
    for summary in summaries:
        found.update(summary["labels"])
    return summarize(path, crops, images, found)


def plan(config: Crop, split: StoredSplit, records: Sequence[ImageRecord], *, in_order: bool = False) -> list[CropTask]:
    """Choose the regions and keys of each image: a pure function of proposals, objects, settings and seed.

    in_order: number the crops in their order in place of a random one.
    """
    truth = split.dataset.ground_truth
    assert truth is not None
    sampled: list[tuple[ImageRecord, bytes, Regions]] = []
    for record, stored in split.read(records):
        if stored is None:  # unreadable, already logged by propose
            continue
        regions = sample_regions(
            stored.proposals.boxes,
            truth[record.image_id],
            stored.image_size,
            config.sampling,
            generator_for(config.seed, record.image_id),
        )
        sampled.append((record, stored.image_digest, regions))
    ids = [record.image_id for record, _, regions in sampled for _ in range(len(regions))]
    keys = iter(ordered_keys(ids) if in_order else shuffled_keys(ids, config.seed))
    return [
        CropTask(
            record.image_id,
            record.path,
            digest,
            regions,
            tuple(next(keys) for _ in range(len(regions))),
            config.crops,
            record.options,
        )
        for record, digest, regions in sampled
    ]


def write_crops(config: Crop, path: Path, tasks: Sequence[CropTask], making: Making) -> int:
    """Write the missing crops. Returns the number of crops in the database.

    Raises Interrupted after a signal.
    """
    with making.stoppable() as stop, LmdbWriter(path) as writer:
        # The crops of an image are written in order, so its last key shows that all are written.
        missing = [task for task in tasks if task.keys and task.keys[-1] not in writer]
        if config.task is None:
            estimate(missing, len(tasks))
        results = ordered_map(make_records, missing, workers=config.workers, describe=lambda task: str(task.path))
        for records in progress(results, "crop", total=len(missing), unit="images"):
            for key, value in records:
                writer.put(key, value)
            if stop:
                break
        writer.commit()
        return len(writer)


def estimate(missing: Sequence[CropTask], total: int) -> None:
    """Log the expected size and time, measured on the first images. Logs nothing if no crop is missing."""
    probe = [task for task in missing if task.keys][:3]
    if not probe:
        return
    begun = time.perf_counter()
    written = [len(value) for task in probe for _, value in make_records(task)]
    seconds = time.perf_counter() - begun
    crops = sum(len(task.keys) for task in missing)
    logger.info(
        "crop: writing %d crops of %d images (%d images already done): about %.0f MB, %.0f s on one core",
        crops,
        len(missing),
        total - len(missing),
        crops * float(np.mean(written)) / 1e6,
        crops * seconds / len(written),
    )


def verify(path: Path, artefact: Artefact) -> None:
    """Decode every crop. Raises CorruptDatumError at the first damaged one, ValueError if crops are missing."""
    wanted = artefact.manifest.summary["crops"]
    with CropsReader(path) as reader:
        if len(reader) != wanted:
            raise ValueError(f"{path}: expected {wanted} crops, got {len(reader)}; run crop with overwrite=true")
        for index in progress(range(len(reader)), "verify", total=len(reader), unit="crops"):
            reader.read([index])
    logger.log(RESULT, "crop: all %d crops of %s are valid", wanted, path)


def _names(dataset: Dataset, regions: Regions) -> list[str]:
    return [dataset.classes[label - 1] if label else "background" for label in regions.labels]


def _megabytes(path: Path) -> float:
    return round(sum(file.stat().st_size for file in data_files(path)) / 1e6, 1)
