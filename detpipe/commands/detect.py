"""`detpipe detect`: classify proposals of the test split or of a folder of images -> detections.json."""

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
from detpipe.classify.detect import NO_DETECTIONS, of_readable
from detpipe.classify.kinds import load_region_spec
from detpipe.commands.stage_settings import Detect
from detpipe.datasets.coco_dataset import write_coco_dataset
from detpipe.datasets.coco_results import read_detections, write_detections
from detpipe.datasets.image_file import BrokenImageError, file_digest, read_image
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import Split, hold_max_bad
from detpipe.datasets.voc import write_voc_results
from detpipe.network.device import resolve_device
from detpipe.network.settings import Precision
from detpipe.progress import progress
from detpipe.proposals.proposals_db import BadImage, parse_proposals, propose_image
from detpipe.proposals.proposer import Proposer
from detpipe.report.drawing import draw_detections, to_jpeg
from detpipe.runs.detect_settings import (
    KeptSettings,
    inference_precision,
    keep_settings,
)
from detpipe.runs.detector import Detector
from detpipe.runs.run_folder import dataset_digest
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.runs.stored_features import stored_detections
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.storage.atomic import write_bytes
from detpipe.storage.lmdb_store import LmdbReader, LmdbWriter
from detpipe.storage.manifest import Artefact, Making, digest_of, read_manifest, same_key
from detpipe.structures import Dataset, Detections, Float32Array, Image, ImageId, ImageRecord, LeftOut

logger = logging.getLogger(__name__)

CHUNK = 8
"""Images per chunk. Their crops share batches, and their detections are committed together."""
BAD = b"bad"
"""Key of the unreadable images of the finished chunks."""


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
    """Classify the proposals of every test image, or of the images of `source`, and write the detections."""
    images = source_images(config) if config.source is not None else test_images(config)
    # auto depends on the machine: the key and the saved settings name the precision that is computed in.
    precision = inference_precision(config.precision, config.folder.classifier, resolve_device(config.device))
    config = replace(config, precision=precision)
    artefact = Artefact(
        config.folder.detections,
        stage="detect",
        settings={
            "detect": replace(config.detect, compile=False),
            "precision": config.precision,
            "source": config.source,
        },
        inputs={
            "classifier": read_manifest(config.folder.classifier).digest,
            "images": dataset_digest(images.dataset),
            "proposals": images.digest,
        },
    )
    # Loaded before the old detections are deleted: they must not be lost if the network is missing.
    find = None if is_done(config, artefact) else finder(config, images)
    with artefact.making(overwrite=make_room(config, artefact)) as making:
        if making.needed:
            detections = detect_all(config, images, making, find or finder(config, images))
            write_detections(config.folder.detections, images.dataset, detections)
            making.summary = {"images": len(images.dataset), "detections": sum(map(len, detections.values()))}
            making.bad = [*images.dataset.bad, *images.bad]
    shutil.rmtree(unfinished(config), ignore_errors=True)
    if config.source is None:
        keep_settings(config.folder.classifier, KeptSettings(detect=config.detect, precision=config.precision))
    write_extras(config, images.dataset)
    summary = artefact.manifest.summary
    logger.info(
        "detect: %d detections in %d images in %.1f s -> %s%s",
        summary["detections"],
        summary["images"],
        artefact.manifest.seconds,
        config.folder.detections,
        f", {config.folder.path / 'annotated'}" if config.source is not None else "",
    )


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
                yield read_image(record.path), np.zeros((0, 4), dtype=np.float32)
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
            yield read_image(record.path), stored.proposals.boxes[:most]


def source_images(config: Detect) -> Input:
    """Return the images of `source`. The run's proposer proposes boxes when an image is read."""
    assert config.source is not None
    spec = load_region_spec(config.folder.classifier)
    images = ImageFolderSource(root=config.source, max_bad=1.0).load(Split.test)
    dataset = replace(images, classes=spec.classes, category_ids=spec.category_ids)
    hold_readable(config, Input(dataset, lambda _: iter(()), ""))  # before old detections are deleted
    # Digests of the files, because a changed image can have the same file size, such as a BMP.
    contents = digest_of([file_digest(record.path).hex() for record in dataset.records])
    if spec.PROPOSES:
        return replace(images_alone(dataset), digest=contents)
    proposer = checked_proposer(config)
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
                yield read_image(record.path), boxes[: config.detect.max_proposals]

    return Input(dataset, regions, contents, bad)


def checked_proposer(config: Detect) -> Proposer:
    """Return the run's proposer. Raises ClassifierError if a file that it needs, such as its network, is missing."""
    proposer = proposer_of_run(config.folder)
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


def detect_all(
    config: Detect, images: Input, making: Making, find: Callable[[Sequence[ImageRecord]], Iterator[Detections]]
) -> dict[ImageId, Detections]:
    """Return the detections of all images, by `find`, or from disk for chunks that an earlier call finished.

    The chunks are always the same and share no batch, so an interrupted call resumes with identical results.
    Raises as `hold_readable`.
    """
    records = images.dataset.records
    chunks = [range(start, min(start + CHUNK, len(records))) for start in range(0, len(records), CHUNK)]
    images.bad.extend(unreadable_before(unfinished(config)))
    with making.stoppable(unfinished(config)) as stop, LmdbWriter(unfinished(config)) as writer:
        missing = [chunk for chunk in chunks if _key(chunk[-1]) not in writer]
        for chunk in progress(missing, "detect", total=len(missing), unit=f"batches of {CHUNK} images"):
            for index, found in zip(chunk, find([records[index] for index in chunk]), strict=True):
                writer.put(_key(index), _pack(found))
            writer.put(BAD, json.dumps([asdict(fault) for fault in images.bad]).encode())
            writer.commit()
            if stop or is_unreadable(config, images):
                break
    if is_unreadable(config, images):
        # The user may repair the files, so the finished chunks must not be used again.
        shutil.rmtree(unfinished(config), ignore_errors=True)
        hold_readable(config, images)
    with LmdbReader(unfinished(config)) as reader:
        return {record.image_id: _unpack(reader.get(_key(index))) for index, record in enumerate(records)}


def finder(config: Detect, images: Input) -> Callable[[Sequence[ImageRecord]], Iterator[Detections]]:
    """From images to their detections: by stored features where those are of these regions, else by the network."""
    as_stored = config.source is None and not config.detect.dedup_step
    stored = (
        stored_detections(config, config.detect, images.digest, images.regions, bf16=config.precision is Precision.bf16)
        if as_stored
        else None
    )
    if stored is not None:
        return stored
    detector = Detector.from_run(
        config.run_dir, device=config.device.value, config=config.detect, precision=config.precision.value
    )

    def find(records: Sequence[ImageRecord]) -> Iterator[Detections]:
        for found in of_readable(detector.predict_many, images.regions(records)):
            yield NO_DETECTIONS if found is None else found

    return find


def unfinished(config: Detect) -> Path:
    """Return the path of the detections of finished chunks."""
    return config.folder.path / "detections.lmdb"


def unreadable_before(database: Path) -> list[LeftOut]:
    """Return the unreadable images in the chunks that an earlier call finished."""
    if not (database / "data.mdb").is_file():
        return []
    with LmdbReader(database) as reader:
        return [LeftOut(**fault) for fault in json.loads(reader.get(BAD))] if BAD in reader else []


def _key(index: int) -> bytes:
    return f"{index:08d}".encode()


def _pack(found: Detections) -> bytes:
    return json.dumps([found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()]).encode()


def _unpack(record: bytes) -> Detections:
    boxes, scores, labels = json.loads(record)
    return Detections(
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.asarray(scores, dtype=np.float32),
        np.asarray(labels, dtype=np.int64),
    )


def make_room(config: Detect, artefact: Artefact) -> bool:
    """Return whether existing detections are replaced. A run folder has detections of a data set or of a `source`.

    Detections of a `source` are always replaced. Those of a data set are renamed for those of a `source`.
    """
    found = None if config.overwrite else artefact.found()
    replaced = config.overwrite
    if found is not None and not same_key(found, artefact.manifest):
        before = found.settings.get("source")
        replaced = before is not None or config.source is not None
        if before is None and config.source is not None and artefact.path.is_file():
            backup_path = artefact.path.with_name("detections.previous.json")
            artefact.path.replace(backup_path)
            logger.info("detect: renamed the detections of the data set to %s", backup_path)
    if replaced or found is None:
        shutil.rmtree(unfinished(config), ignore_errors=True)
    return replaced


def write_extras(config: Detect, dataset: Dataset) -> None:
    """Write the files of the VOC devkit and the COCO data set, if set, and the drawn images of `source`.

    They are made from detections.json, so they can also be written later.
    """
    if not config.voc_results and not config.coco and config.source is None:
        return
    detections = read_detections(config.folder.detections, dataset)
    if config.voc_results:
        write_voc_results(config.folder.path / "voc_results", dataset, detections)
    if config.coco:
        path = config.folder.path / "detections_coco.json"
        images = write_coco_dataset(path, dataset, detections, min_score=config.show_floor)
        logger.info("detect: COCO data set -> %s; file names are relative to %s", path, images)
    if config.source is None:
        return
    for record in progress(dataset.records, "draw", total=len(dataset), unit="images"):
        try:
            image = read_image(record.path)
        except BrokenImageError:  # already logged, and in the manifest
            continue
        drawn = draw_detections(image, detections[record.image_id], dataset.classes, min_score=config.show_floor)
        target = config.folder.path / "annotated" / f"{record.image_id}.jpg"
        write_bytes(target, to_jpeg(drawn))
