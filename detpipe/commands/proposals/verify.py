"""`detpipe proposals verify`: is a proposals.lmdb whole, and are its images those that are there now?"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from detpipe.commands.proposals.settings import ProposalsVerify
from detpipe.datasets.image_file import file_digest
from detpipe.datasets.source import Split
from detpipe.progress import progress
from detpipe.proposals.proposals_db import CorruptRecordError, ProposalsReader, StoredProposals, parse_proposals
from detpipe.runs.run_folder import load_splits, verify_input
from detpipe.storage.manifest import ArtefactError, Manifest, read_manifest
from detpipe.structures import Dataset, ImageRecord

logger = logging.getLogger(__name__)


class ProposalsFaultError(ValueError):
    """A proposals.lmdb that is not what its manifest, or the data set, says."""


def run(config: ProposalsVerify) -> None:
    """Name every fault in the log. Raises ProposalsFaultError where there is one.

    An unfinished database raises ArtefactError.
    """
    database = config.database
    manifest = read_manifest(database)
    faults = list(faults_of_records(database, manifest))
    if config.dataset is not None:
        for split, dataset in load_splits(config.dataset).items():
            faults += faults_of_images(database, manifest, split, dataset)
    for fault in faults:
        logger.warning("%s", fault)
    if faults:
        raise ProposalsFaultError(f"{database}: {len(faults)} faults, named above; the first: {faults[0]}")
    images = "" if config.dataset is None else ", and of the images as they are now"
    logger.info("verify: all records of %s are whole%s", database, images)


def faults_of_records(database: Path, manifest: Manifest) -> Iterator[str]:
    """What is wrong in the database itself: checksums, order, bounds, boxes that stand twice, sources without a name.

    A record that is missing is noticed by the number of all.
    """
    names = manifest.settings["proposals"].get("sources", [])
    with ProposalsReader(database) as reader:
        wanted = manifest.summary.get("records")
        if wanted is not None and len(reader) != wanted:
            yield f"{database}: expected {wanted} records, found {len(reader)}"
        for key, data in progress(reader.records(), "verify", total=len(reader), unit="record"):
            try:
                stored = parse_proposals(data, f"record {key!r}")
            except CorruptRecordError as error:
                yield str(error)
            else:
                yield from (f"record {key!r}: {fault}" for fault in faults_of_content(stored, len(names)))


def faults_of_content(stored: StoredProposals, named_sources: int) -> Iterator[str]:
    """What no proposer would have written, though its checksum is right."""
    boxes = stored.proposals.boxes
    repeated = len(boxes) - len(np.unique(boxes, axis=0))
    if repeated:
        yield f"{repeated} boxes stand there twice"
    if stored.sources is not None and len(stored.sources) and stored.sources.max() >= named_sources:
        yield f"a box of source {stored.sources.max()}, but the manifest names {named_sources}"


def faults_of_images(database: Path, manifest: Manifest, split: Split, dataset: Dataset) -> Iterator[str]:
    """Images of a split without a record, but for those that the manifest lists as bad, and files that have changed."""
    try:
        verify_input(manifest, database, split, dataset)
    except ArtefactError as error:
        yield str(error)
    expected = left_out_records(manifest)
    with ProposalsReader(database) as reader:
        for record in progress(dataset.records, f"verify {split.value}", total=len(dataset), unit="image"):
            if (split.value, record.image_id) in reader:
                yield from fault_of_image(reader, split, record)
            elif f"{split.value}/{record.image_id}" not in expected:
                yield f"{record.path}: no record of {split.value} image {record.image_id}"


def left_out_records(manifest: Manifest) -> set[str]:
    """The images without a record because they could not be read, as "split/image id"."""
    return {one.key for one in manifest.bad if one.key is not None}


def fault_of_image(reader: ProposalsReader, split: Split, record: ImageRecord) -> Iterator[str]:
    """At most one: a file whose bytes are others. Damaged records were named before."""
    try:
        stored = reader.read(split.value, record.image_id)
    except CorruptRecordError:
        return
    if file_digest(record.path) != stored.image_digest:
        yield f"{record.path}: changed since its proposals were made; run propose with overwrite=true"
