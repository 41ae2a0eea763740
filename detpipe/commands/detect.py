"""`detpipe detect`: classify proposals of the test split -> detections.json, or of a `source` -> sources/NAME/."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from detpipe.classify.classifier_folder import ClassifierError, check_classes
from detpipe.classify.crops.database import verify_image
from detpipe.classify.detect import NO_DETECTIONS, of_readable, select
from detpipe.classify.kinds import kind_in, load_region_spec
from detpipe.classify.object_trace import trace_objects
from detpipe.commands import detect_parts, detect_stream
from detpipe.commands.detect_outputs import read_roll_up, write_animals, write_extras, write_source_pages
from detpipe.commands.detected_chunks import (
    BAD,
    Found,
    damaged,
    key_of,
    packed,
    unfinished,
    unpacked,
    unreadable_before,
)
from detpipe.commands.images import classify
from detpipe.commands.stage_settings import Detect
from detpipe.commands.tasks import held_shards, making_shard, run_tasks
from detpipe.console import RESULT, amount
from detpipe.datasets.coco_results import write_detections
from detpipe.datasets.image_file import BrokenImageError, file_digest, read_image
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.source import Split, hold_max_bad
from detpipe.engines.ray import RayEngine
from detpipe.network.device import resolve_device
from detpipe.network.settings import Precision
from detpipe.progress import progress
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.proposals_db import BadImage, parse_proposals, propose_image
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.tiled import TiledProposals
from detpipe.runs.dataset_record import explainer, remember
from detpipe.runs.detect_settings import KeptSettings, inference_precision, keep_settings, kept_settings
from detpipe.runs.detected_files import CHUNK
from detpipe.runs.detector import Detector
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.operating_point import shown_from
from detpipe.runs.run_folder import RunFolder, images_input
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.runs.source_folder import resolved_source, source_folder, source_root
from detpipe.runs.source_results import write_results
from detpipe.runs.stored_features import Scores, stored_scores
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.runs.trace_file import write_traces
from detpipe.storage.lmdb_pages import is_begun
from detpipe.storage.lmdb_store import LmdbReader, LmdbWriter
from detpipe.storage.manifest import Artefact, Making, digest_of, find_manifest, read_manifest, same_key
from detpipe.storage.shards import Shards
from detpipe.structures import Dataset, Float32Array, Image, ImageId, ImageRecord, LeftOut

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """The images to detect in.

    regions: reads the image (H, W, 3) and boxes (R, 4) of each record, in order; gives None for an unreadable image.
    digest: of the proposals, or of the files of `source`. bad: the unreadable images that `regions` has met.
    """

    dataset: Dataset
    regions: Callable[[Sequence[ImageRecord]], Iterator[tuple[Image, Float32Array] | None]]
    digest: str
    bad: list[LeftOut] = field(default_factory=list)


def run(config: Detect) -> None:
    """Classify the proposals of every test image, or of the images of `source`, and write the detections.

    With a classifier of whole images, each image of `source` gets its class.
    """
    if config.source is not None and kind_in(config.folder.classifier).scorer is None:
        if config.tasks is not None:
            raise ValueError("tasks: expected null for a classifier of whole images, got tasks; leave it out")
        if config.out is not None:
            raise ClassifierError(
                f"out: expected a detector in {config.folder.classifier}, got one of whole images; leave it out"
            )
        classify.run(config)
        return
    if config.out is not None:
        if config.tasks is not None:
            raise ValueError(
                "tasks: expected null with out, whose parts go on from where they stopped; leave it out, and give "
                "engine=ray for many machines"
            )
        proposes = load_region_spec(config.folder.classifier).PROPOSES
        detect_all_parts = detect_stream.run if isinstance(config.engine, RayEngine) else detect_parts.run
        detect_all_parts(config, None if proposes else checked_proposer(config))
        return
    images = source_images(config) if config.source is not None else test_images(config)
    out = config.folder if config.source is None else source_folder(config.folder, config.source)
    # auto depends on the machine: the key and the saved settings name the precision that is computed in.
    precision = inference_precision(config.precision, config.folder.classifier, resolve_device(config.device))
    config = replace(config, precision=precision)
    min_score, why = shown_from(config.folder.classifier, config.show_floor)
    roll_up = read_roll_up(config, images.dataset)
    found = None if config.overwrite else find_manifest(out.detections)
    artefact = Artefact(
        out.detections,
        stage="detect",
        settings={
            "detect": replace(config.detect, compile=False),
            "precision": config.precision,
            "source": None if config.source is None else resolved_source(config.source),
        },
        inputs={
            "classifier": read_manifest(config.folder.classifier).digest,
            "images": images_input(images.dataset, found.inputs.get("images") if found is not None else None),
            "proposals": images.digest,
        },
        explain=explainer(config.folder, {"images": images.dataset}),
    )
    if config.task is not None:
        make_shard(config, artefact, images)
        return
    # Loaded before the old detections are deleted: they must not be lost if the network is missing.
    find = None if config.tasks is not None or is_done(config, artefact) else finder(config, images)
    with (
        held_shards(config, artefact) as shards,
        artefact.making(overwrite=make_room(config, artefact, out)) as making,
    ):
        if config.source is None:
            keep_dataset(config.folder, config.data_source)
        if making.needed:
            if config.source is None:
                remember(config.folder, [images.dataset])
            if shards:
                records = images.dataset.records
                run_tasks(config, "detect", shards, [len(own) for own in shards[0].parts(records, step=CHUNK)])
                results = merge_shards(config, images, shards[0])
            else:
                results = detect_all(config, images, out, making, find or finder(config, images))
            detections = {image_id: one.detections for image_id, one in results.items()}
            write_traces(out.object_traces, images.dataset, config.detect, [one.traces for one in results.values()])
            if config.source is None:
                write_detections(out.detections, images.dataset, detections)
            else:
                write_results(out.detections, images.dataset, source_root(config.source), detections)
            making.summary = {"images": len(images.dataset), "detections": sum(map(len, detections.values()))}
            making.bad = [*images.dataset.bad, *images.bad]
    shutil.rmtree(unfinished(out), ignore_errors=True)
    if config.source is None:
        kept = KeptSettings(detect=config.detect, precision=config.precision, stretch=config.data_source.stretch)
        keep_settings(config.folder.classifier, kept)
    write_extras(config, images.dataset, out, min_score, why)
    write_animals(config, artefact, images.dataset, out, min_score, roll_up)
    summary = artefact.manifest.summary
    logger.log(
        RESULT,
        "detect: %s with a score of at least %g in %s in %.1f s -> %s",
        amount(summary["detections"], "detections"),
        config.detect.score_floor,
        amount(summary["images"], "images"),
        artefact.manifest.seconds,
        out.detections,
    )
    if config.source is not None:
        write_source_pages(config, artefact, images.dataset, out, min_score, why)


def is_done(config: Detect, artefact: Artefact) -> bool:
    """Return whether the run folder already has these detections."""
    found = None if config.overwrite else artefact.found()
    return found is not None and found.complete and artefact.path.is_file() and same_key(found, artefact.manifest)


def test_images(config: Detect) -> Input:
    """Return the test split and its stored proposals. Raises ClassifierError if the classifier has other classes."""
    dataset = config.data_source.load(Split.test)
    spec = load_region_spec(config.folder.classifier)
    check_classes(spec, dataset.classes, dataset.name)
    if spec.PROPOSES:
        return images_alone(dataset)
    split = open_split(config.folder.proposals, Split.test, dataset)

    def regions(records: Sequence[ImageRecord]) -> Iterator[tuple[Image, Float32Array] | None]:
        return stored_regions(split, records, config.detect.max_proposals)

    return Input(dataset, regions, split.manifest.digest)


def images_alone(dataset: Dataset) -> Input:
    """Return images without regions, for a network that proposes itself."""
    bad: list[LeftOut] = []

    def regions(records: Sequence[ImageRecord]) -> Iterator[tuple[Image, Float32Array] | None]:
        for record in records:
            try:
                yield read_image(record.path, record.options), np.zeros((0, 4), dtype=np.float32)
            except (BrokenImageError, OSError) as error:
                logger.warning("no detections: %s", error)
                bad.append(LeftOut.because(record.path, error))
                yield None

    return Input(dataset, regions, "", bad)


def stored_regions(
    split: StoredSplit, records: Iterable[ImageRecord], most: int
) -> Iterator[tuple[Image, Float32Array] | None]:
    """Yield each image with the first `most` of its stored proposals; None if `propose` could not read it.

    Raises ValueError if the image file has changed since.
    """
    for record, stored in split.read(records):
        if stored is None:
            yield None
        else:
            verify_image(record.path, stored.image_digest)
            yield read_image(record.path, record.options), stored.proposals.boxes[:most]


def source_images(config: Detect) -> Input:
    """Return the images of `source`. The run's proposer proposes boxes when an image is read."""
    assert config.source is not None
    spec = load_region_spec(config.folder.classifier)
    source = DetectedImages(
        root=config.source,
        max_bad=1.0,
        outside=config.outside,
        max_pixels=config.max_pixels,
        stretch=kept_settings(config.folder.classifier).stretch,
    )
    images = source.load(Split.test)
    dataset = replace(images, classes=spec.classes, category_ids=spec.category_ids)
    hold_readable(config, Input(dataset, lambda _: iter(()), ""))  # before old detections are deleted
    # Digests of the files, because a changed image can have the same file size, such as a BMP.
    contents = digest_of([file_digest(record.path).hex() for record in dataset.records])
    if spec.PROPOSES:
        if config.boxes is not None:
            raise ClassifierError(
                f"{config.folder.classifier}: expected a classifier of given boxes, got one that proposes itself; "
                "leave out boxes"
            )
        return replace(images_alone(dataset), digest=contents)
    if config.boxes is None:
        proposer = checked_proposer(config)
    else:
        proposer = ImportedProposals(path=config.boxes, max_proposals=None)
        proposer.check([dataset])
        contents = digest_of([contents, *(file_digest(file).hex() for file in proposer.files)])
    files = proposer.inputs()
    bad: list[LeftOut] = []

    def regions(records: Sequence[ImageRecord]) -> Iterator[tuple[Image, Float32Array] | None]:
        # No worker processes: proposing takes much less time than classifying, and a thread reads ahead.
        for record in records:
            result = propose_image(proposer, record, None)
            if isinstance(result, BadImage):
                logger.warning("no detections: %s", result.reason)
                bad.append(LeftOut.because(record.path, result.reason))
                yield None
            else:
                boxes = parse_proposals(result, str(record.path)).proposals.boxes
                yield read_image(record.path, record.options), boxes[: config.detect.max_proposals]

    return Input(dataset, regions, digest_of([contents, files]) if files else contents, bad)


def checked_proposer(config: Detect) -> Proposer:
    """Return the run's proposer. Raises ClassifierError if a file that it needs, such as its network, is missing."""
    proposer = proposer_of_run(config.folder)
    if config.tile_settings.used and not isinstance(proposer, TiledProposals):
        proposer = TiledProposals.around(proposer, config.tile_settings)
    try:
        proposer.check()
    except (OSError, ValueError) as error:
        raise ClassifierError(
            f"{config.folder.path}: expected the run's proposer for new images, got: {error}; restore the missing files"
        ) from error
    return proposer


def is_unreadable(config: Detect, images: Input) -> bool:
    """Return whether no image of `source` is readable, or too few images of a data set."""
    if config.source is not None:
        return len(images.bad) >= len(images.dataset)
    return len(images.bad) > config.data_source.max_bad * len(images.dataset)


def hold_readable(config: Detect, images: Input) -> None:
    """Raise BrokenImageError with files and reasons if no image of `source` is readable.

    For a data set, raises TooManyBadError if the share of unreadable images is above its `max_bad`.
    """
    if not is_unreadable(config, images):
        return
    if config.source is None:
        hold_max_bad(images.bad, len(images.dataset), config.data_source.max_bad, "dataset.max_bad")
    bad = [*images.dataset.bad, *images.bad]
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise BrokenImageError(
        f"source={config.source}: expected a readable image, got none: {'; '.join(map(str, bad[:3]))}{more}"
    )


Finder = Callable[[Sequence[ImageRecord]], Iterator[Scores | None]]
"""From images to their scored regions; None for an unreadable image."""


def detect_all(config: Detect, images: Input, out: RunFolder, making: Making, find: Finder) -> dict[ImageId, Found]:
    """Return the result of all images, by `find`, or from disk for chunks that an earlier call finished.

    The chunks are always the same and share no batch, so an interrupted call resumes with identical results.
    Raises as `hold_readable`.
    """
    records = images.dataset.records
    detect_chunks(config, images, range(len(records)), unfinished(out), making, find)
    if is_unreadable(config, images):
        # The user may repair the files, so the finished chunks must not be used again.
        shutil.rmtree(unfinished(out), ignore_errors=True)
        hold_readable(config, images)
    with LmdbReader(unfinished(out)) as reader:
        try:
            return {record.image_id: unpacked(reader.get(key_of(index))) for index, record in enumerate(records)}
        except (ValueError, TypeError) as error:
            raise damaged(reader.path, error) from error


def detect_chunks(
    config: Detect, images: Input, indices: Sequence[int], database: Path, making: Making, find: Finder
) -> None:
    """Write the results of these images, from a multiple of CHUNK on, into a database, but for finished chunks.

    Outside of a task it ends early if too many images are unreadable. Raises Interrupted after a signal.
    """
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    images.bad.extend(unreadable_before(database))
    with making.stoppable(database) as stop, LmdbWriter(database) as writer:
        missing = [chunk for chunk in chunks if key_of(chunk[-1]) not in writer]
        found = (one for chunk in missing for one in _find_chunk(chunk, config, images.dataset, find))
        last = {chunk[-1] for chunk in chunks}
        for index, one in progress(found, "detect", total=sum(map(len, missing)), unit="images"):
            writer.put(key_of(index), packed(one))
            if index not in last:
                continue
            writer.put(BAD, json.dumps([asdict(fault) for fault in images.bad]).encode())
            writer.commit()
            if stop or (config.task is None and is_unreadable(config, images)):
                break


def make_shard(config: Detect, whole: Artefact, images: Input) -> None:
    """Detect in the images of one task."""
    with making_shard(config, whole, replaces=config.source is not None) as (making, shards):
        if making.needed:
            own = shards.own(range(len(images.dataset)), config.task, step=CHUNK)
            detect_chunks(config, images, own, making.path, making, finder(config, images) if own else _find_nothing)
            making.summary = {"images": len(own)}
            making.bad = images.bad


def _find_nothing(records: Sequence[ImageRecord]) -> Iterator[Scores | None]:
    return iter([None for _ in records])


def merge_shards(config: Detect, images: Input, shards: Shards) -> dict[ImageId, Found]:
    """Return the results of all shards. Raises ShardError for a missing or damaged one, and as `hold_readable`."""
    images.bad.extend(shards.bad())
    if is_unreadable(config, images):
        shards.retry_bad(delete=True)
        hold_readable(config, images)
    records, results = images.dataset.records, {}
    for number, own in enumerate(shards.parts(range(len(records)), step=CHUNK), start=1):
        path = shards.finished(number)
        try:
            with LmdbReader(path) as reader:
                results.update({records[index].image_id: unpacked(reader.get(key_of(index))) for index in own})
        except (KeyError, ValueError, TypeError) as error:
            raise shards.damaged(number, error) from error
    return results


def _find_chunk(chunk: Sequence[int], config: Detect, dataset: Dataset, find: Finder) -> Iterator[tuple[int, Found]]:
    """Yield the index and the result of each image of a chunk."""
    records = [dataset.records[index] for index in chunk]
    for index, record, scores in zip(chunk, records, find(records), strict=True):
        if scores is None:
            yield index, Found(NO_DETECTIONS, None)
            continue
        truth = dataset.ground_truth[record.image_id].measured if dataset.ground_truth is not None else None
        selection = select(*scores, config.detect)
        traces = trace_objects(*scores, selection, truth, config.detect.suppressed_above) if truth is not None else None
        yield index, Found(selection.detections, traces)


def finder(config: Detect, images: Input) -> Finder:
    """From images to scored regions: by stored features where those are of these regions, else by the network."""
    as_stored = config.source is None and not config.detect.dedup_step
    stored = (
        stored_scores(config, config.detect, images.digest, images.regions, bf16=config.precision is Precision.bf16)
        if as_stored
        else None
    )
    if stored is not None:
        return stored
    detector = Detector.from_run(
        config.run_dir, device=config.device.value, config=config.detect, precision=config.precision.value
    )
    return lambda records: of_readable(detector.score_many, images.regions(records))


def make_room(config: Detect, artefact: Artefact, out: RunFolder) -> bool:
    """Return whether existing detections are replaced: if `overwrite` says so, or without loss.

    Detections of a source are replaced when the source changed. (A run folder of an earlier version may have them in
    place of the detections of its data set.) Of an attempt that failed before its first chunk there is nothing to keep.
    """
    found = None if config.overwrite else artefact.found()
    outdated = found is not None and not same_key(found, artefact.manifest)
    replaced = config.overwrite
    if found is not None and outdated:
        nothing_made = not found.complete and not is_begun(unfinished(out))
        replaced = replaced or nothing_made or found.settings.get("source") is not None
    if replaced or found is None:
        shutil.rmtree(unfinished(out), ignore_errors=True)
    return replaced
