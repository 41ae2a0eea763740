"""The stored proposals of one split, held against the data set that they were made for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detpipe.datasets.source import Split
from detpipe.proposals.proposals_db import ProposalsReader, StoredProposals
from detpipe.runs.run_folder import verify_input
from detpipe.storage.manifest import Manifest, read_manifest
from detpipe.structures import Dataset, ImageId, ImageRecord, Proposals


@dataclass(frozen=True, eq=False)
class StoredSplit:
    """A proposals.lmdb and one split in it; `open_split` makes sure that they belong together."""

    path: Path
    split: Split
    dataset: Dataset

    @cached_property
    def manifest(self) -> Manifest:
        """Of the database. Raises ArtefactError where it is missing or unfinished."""
        return read_manifest(self.path)

    def read(
        self, records: Iterable[ImageRecord] | None = None
    ) -> Iterator[tuple[ImageRecord, StoredProposals | None]]:
        """Each image with its proposals, streamed; None for one that could not be read when they were made.

        records: some of the data set's, in any order; default, all of them. Raises CorruptRecordError for broken bytes.
        """
        with ProposalsReader(self.path) as reader:
            for record in self.dataset.records if records is None else records:
                there = (self.split.value, record.image_id) in reader
                yield record, reader.read(self.split.value, record.image_id) if there else None

    def proposals(self) -> Iterator[tuple[ImageId, Proposals]]:
        """The proposals of each image that has any record, as the metrics take them."""
        for record, stored in self.read():
            if stored is not None:
                yield record.image_id, stored.proposals


def open_split(path: Path, split: Split, dataset: Dataset) -> StoredSplit:
    """The split of a complete proposals.lmdb.

    Raises ArtefactError where it is missing, unfinished, or made from other images or objects.
    """
    stored = StoredSplit(path, split, dataset)
    verify_input(stored.manifest, path, split, dataset)
    return stored
