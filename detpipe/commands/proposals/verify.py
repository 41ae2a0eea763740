"""`detpipe proposals verify`: check a proposals.lmdb for damage, and that its images have not changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from detpipe.commands.proposals.settings import ProposalsVerify
from detpipe.console import RESULT
from detpipe.datasets.image_file import file_digest
from detpipe.datasets.source import Split
from detpipe.progress import progress
from detpipe.proposals.proposals_db import CorruptRecordError, ProposalsReader, StoredProposals, parse_proposals
from detpipe.runs.run_folder import load_splits, verify_input
from detpipe.storage.manifest import ArtefactError, Manifest, read_manifest
from detpipe.structures import Dataset, ImageRecord

logger = logging.getLogger(__name__)


class ProposalsFaultError(ValueError):
    """A proposals.lmdb that differs from its manifest or from the data set."""


def run(config: ProposalsVerify) -> None:
    """Log every fault. Raises ProposalsFaultError if there is one, ArtefactError for an unfinished database."""
    database = config.database
    manifest = read_manifest(database)
    faults = list(faults_of_records(database, manifest))
    if config.dataset is not None:
        for split, dataset in load_splits(config.dataset).items():
            faults += faults_of_images(database, manifest, split, dataset)
    for fault in faults:
        logger.warning("%s", fault)
    if faults:
        raise ProposalsFaultError(
            f"{database}: expected no faults, got {len(faults)}, listed above; run propose with "
            f"overwrite=true. The first: {faults[0]}"
        )
    images = "" if config.dataset is None else " and match the images"
    logger.log(RESULT, "verify: all records of %s are valid%s", database, images)


def faults_of_records(database: Path, manifest: Manifest) -> Iterator[str]:
    """Yield the faults of the records: number, checksums, order, bounds, duplicate boxes, unknown sources.

    A missing record is found by the number of records.
    """
    names = manifest.settings["proposals"].get("sources", [])
    with ProposalsReader(database) as reader:
        wanted = manifest.summary.get("records")
        if wanted is not None and len(reader) != wanted:
            yield f"{database}: expected {wanted} records, got {len(reader)}"
        for key, data in progress(reader.records(), "verify", total=len(reader), unit="records"):
            try:
                stored = parse_proposals(data, f"record {key!r}")
            except CorruptRecordError as error:
                yield str(error)
            else:
                yield from (f"record {key!r}: {fault}" for fault in faults_of_content(stored, len(names)))


def faults_of_content(stored: StoredProposals, named_sources: int) -> Iterator[str]:
    """Yield faults of a record that has a correct checksum: duplicate boxes and unknown sources."""
    boxes = stored.proposals.boxes
    repeated = len(boxes) - len(np.unique(boxes, axis=0))
    if repeated:
        yield f"{repeated} duplicate boxes"
    if stored.sources is not None and len(stored.sources) and stored.sources.max() >= named_sources:
        yield f"a box of source {stored.sources.max()}, but the manifest has {named_sources} sources"


def faults_of_images(database: Path, manifest: Manifest, split: Split, dataset: Dataset) -> Iterator[str]:
    """Yield images of a split that have changed, or have no record and are not in the manifest's list of bad images."""
    try:
        verify_input(manifest, database, split, dataset)
    except ArtefactError as error:
        yield str(error)
    expected = left_out_records(manifest)
    with ProposalsReader(database) as reader:
        for record in progress(dataset.records, f"verify {split.value}", total=len(dataset), unit="images"):
            if (split.value, record.image_id) in reader:
                yield from fault_of_image(reader, split, record)
            elif f"{split.value}/{record.image_id}" not in expected:
                yield f"{record.path}: no record of {split.value} image {record.image_id}"


def left_out_records(manifest: Manifest) -> set[str]:
    """Return the images without a record because they were unreadable, as "split/image id"."""
    return {one.key for one in manifest.bad if one.key is not None}


def fault_of_image(reader: ProposalsReader, split: Split, record: ImageRecord) -> Iterator[str]:
    """Yield a fault if the image file has changed. A damaged record gives none: it is reported elsewhere."""
    try:
        stored = reader.read(split.value, record.image_id)
    except CorruptRecordError:
        return
    if file_digest(record.path) != stored.image_digest:
        yield f"{record.path}: changed since its proposals were made; run propose with overwrite=true"
