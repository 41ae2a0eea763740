"""`detpipe crop`: training crops from proposals and objects -> crops.lmdb, crops_val.lmdb."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detpipe.classify.crops.database import CropsReader, CropTask, make_records, shuffled_keys
from detpipe.classify.labeling import Regions, sample_regions
from detpipe.commands.stage_settings import Crop
from detpipe.console import RESULT
from detpipe.datasets.source import Split
from detpipe.parallel import ordered_map
from detpipe.progress import progress
from detpipe.randomness import generator_for
from detpipe.runs.dataset_record import explainer, remember
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.run_folder import dataset_digest
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.runs.training_images import training_parts
from detpipe.storage.lmdb_store import LmdbWriter
from detpipe.storage.manifest import Artefact, Making
from detpipe.structures import Dataset, ImageRecord

logger = logging.getLogger(__name__)


def run(config: Crop) -> None:
    """Label and sample the proposals of the training images, and write their crops in random order."""
    train, val = training_parts(config.data_source, config.sampling.val_share, config.seed)
    for path, part in ((config.folder.crops, train), (config.folder.val_crops, val)):
        make_crops(config, path, part.split, part.dataset, part.records)


def make_crops(config: Crop, path: Path, split: Split, dataset: Dataset, records: Sequence[ImageRecord]) -> None:
    """Write one database of crops from the images `records` of a split."""
    stored = open_split(config.folder.proposals, split, dataset)
    artefact = Artefact(
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
    with artefact.making(overwrite=config.overwrite) as making:
        keep_dataset(config.folder, config.data_source)
        if making.needed:
            remember(config.folder, [dataset])
            tasks = plan(config, stored, records)
            count = write_crops(config, path, tasks, making)
            labels = Counter(name for task in tasks for name in _names(dataset, task.regions))
            making.summary = {
                "crops": count,
                "images": len(tasks),
                "megabytes": _megabytes(path),
                "labels": dict(sorted(labels.items())),
            }
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


def plan(config: Crop, split: StoredSplit, records: Sequence[ImageRecord]) -> list[CropTask]:
    """Choose the regions and keys of each image: a pure function of proposals, objects, settings and seed."""
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
    keys = iter(
        shuffled_keys([record.image_id for record, _, regions in sampled for _ in range(len(regions))], config.seed)
    )
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
    return round((path / "data.mdb").stat().st_size / 1e6, 1)
