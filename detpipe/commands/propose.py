"""`detpipe propose`: propose boxes on all images -> proposals.lmdb, recall.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from detpipe.commands.run_settings import Propose
from detpipe.commands.tasks import held_shards, keep_shards, making_shard, run_tasks
from detpipe.console import RESULT
from detpipe.datasets.source import Split, TooManyBadError, hold_max_bad
from detpipe.parallel import ordered_map
from detpipe.plugins import package_versions
from detpipe.progress import counted, progress
from detpipe.proposals.proposals_db import BadImage, ProposalsReader, ProposalsWriter, ProposeTask, propose_task
from detpipe.runs.command import Command
from detpipe.runs.dataset_record import explainer, remember
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.recall import measure_recall, update_recall
from detpipe.runs.run_folder import RunFolder, load_splits, splits_digests, write_split
from detpipe.storage.lmdb_store import DatabaseError
from detpipe.storage.manifest import Artefact, Making, find_manifest
from detpipe.storage.shards import Shards, forget_merge
from detpipe.structures import Dataset, GroundTruth, ImageRecord, LeftOut

logger = logging.getLogger(__name__)


def run(config: Propose) -> None:
    """Propose boxes on every image of every split, and measure their recall."""
    splits = load_splits(config.data_source)
    config.proposals.check(list(splits.values()))
    write_split(config.folder, config.data_source)
    found = None if config.overwrite else find_manifest(config.folder.proposals)
    digests = splits_digests(splits, objects=config.proposals.uses_objects, found=found)
    artefact = Artefact(
        config.folder.proposals,
        stage="propose",
        settings={"proposals": config.proposals.describe()},
        inputs={**digests, **config.proposals.inputs(), **package_versions(config.proposals.describe())},
        explain=explainer(config.folder, {split.value: dataset for split, dataset in splits.items()}),
    )
    logger.debug("propose: %s of %d images", config.proposals.describe(), sum(map(len, splits.values())))
    tasks = [(split, record) for split, dataset in splits.items() for record in dataset.records]
    if config.task is not None:
        make_shard(config, artefact, splits, tasks)
        return
    with (
        held_shards(config, artefact, merge=config.merge) as shards,
        artefact.making(overwrite=config.overwrite) as making,
    ):
        keep_dataset(config.folder, config.data_source)
        if making.needed:
            remember(config.folder, splits.values())
            if shards:
                run_tasks(config, "propose", shards, [len(own) for own in shards[0].parts(tasks)])
                if config.merge:
                    merge_shards(config, shards[0], tasks)
                else:
                    keep_shards(shards[0], records="records")
                bad = shards[0].bad()
            else:
                bad = write_proposals(config, splits, tasks, making)
            try:
                seal(config, splits, making, bad)
            except TooManyBadError:
                for one in shards:
                    one.retry_bad(delete=False)
                raise
    updated = update_recall(config.folder, splits)
    if updated is not None:
        logger.info("propose: the annotations have changed, the proposals have not; measured their recall again")
        artefact.manifest = updated
    report(config.folder, artefact)


Task = tuple[Split, ImageRecord]


def make_shard(config: Propose, whole: Artefact, splits: Mapping[Split, Dataset], tasks: Sequence[Task]) -> None:
    """Propose boxes on the images of one task."""
    with making_shard(config, whole) as (making, shards):
        if making.needed:
            own = shards.own(tasks, config.task)
            making.bad = write_proposals(config, splits, own, making)
            making.summary = {"images": len(own), "records": len(own) - len(making.bad)}


def merge_shards(config: Propose, shards: Shards, tasks: Sequence[Task]) -> None:
    """Copy the records of all shards, as `write_proposals` would write them.

    Raises ShardError for a missing or damaged shard.
    """
    left_out = {one.key for one in shards.bad()}
    forget_merge(config.folder.proposals)
    with ProposalsWriter(config.folder.proposals) as writer, counted("merge", total=len(tasks), unit="images") as count:
        for number, own in enumerate(shards.parts(tasks), start=1):
            path = shards.finished(number)
            try:
                with ProposalsReader(path) as reader:
                    for split, record in own:
                        if f"{split.value}/{record.image_id}" not in left_out:
                            writer.put(split.value, record.image_id, reader.raw(split.value, record.image_id))
                        count.advance()
            except (DatabaseError, KeyError) as error:
                raise shards.damaged(number, error) from error


def write_proposals(
    config: Propose, splits: Mapping[Split, Dataset], tasks: Sequence[Task], making: Making
) -> list[LeftOut]:
    """Propose boxes on all images without a record in `making.path`. Returns the unreadable images.

    Raises Interrupted after a signal.
    """
    bad = []
    with making.stoppable() as stop, ProposalsWriter(making.path) as writer:
        missing = [task for task in tasks if (task[0].value, task[1].image_id) not in writer]
        if len(missing) < len(tasks):
            logger.info("propose: %d of %d images already done", len(tasks) - len(missing), len(tasks))
        work = (ProposeTask(config.proposals, record, _truth(splits[split], record)) for split, record in missing)
        results = ordered_map(
            propose_task,
            work,
            workers=config.workers,
            describe=ProposeTask.describe,
            max_threads=config.proposals.max_threads,
        )
        for (split, record), result in zip(
            missing, progress(results, "propose", total=len(missing), unit="images"), strict=True
        ):
            if isinstance(result, BadImage):
                bad.append(LeftOut.because(record.path, result.reason, f"{split.value}/{record.image_id}"))
            else:
                writer.put(split.value, record.image_id, result)
            if stop:
                break
    return bad


def seal(config: Command, splits: Mapping[Split, Dataset], making: Making, bad: Sequence[LeftOut]) -> None:
    """After all records are written: check max_bad, measure the recall, and set the summary.

    bad: images without a record.
    """
    images = sum(map(len, splits.values()))
    hold_max_bad(bad, images, config.data_source.max_bad, "dataset.max_bad")
    recall = measure_recall(config.folder, splits)
    making.summary = {"images": images, "records": images - len(bad), **recall}
    making.bad = [*(fault for dataset in splits.values() for fault in dataset.bad), *bad]


def _truth(dataset: Dataset, record: ImageRecord) -> GroundTruth | None:
    return None if dataset.ground_truth is None else dataset.ground_truth[record.image_id]


def report(folder: RunFolder, artefact: Artefact) -> None:
    """Log the result."""
    summary = artefact.manifest.summary
    files, recall = str(folder.proposals), ""
    if "recall_of" in summary:
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in summary.items() if isinstance(value, float))
        recall = f"; {summary['recall_of']} images, 1000 boxes: {numbers}"
        files += f", {folder.recall}"
    logger.log(
        RESULT, "propose: %s images in %.1f s%s -> %s", summary["images"], artefact.manifest.seconds, recall, files
    )
