"""The stored proposals of one split of a data set."""

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
    """One split in a proposals.lmdb. `open_split` checks that it was made from `dataset`."""

    path: Path
    split: Split
    dataset: Dataset

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the database. Raises ArtefactError if it is missing or unfinished."""
        return read_manifest(self.path)

    def read(
        self, records: Iterable[ImageRecord] | None = None
    ) -> Iterator[tuple[ImageRecord, StoredProposals | None]]:
        """Stream each image with its proposals; None for an image that was unreadable when they were made.

        records: images of the data set in any order; default, all. Raises CorruptRecordError for a damaged record.
        """
        with ProposalsReader(self.path) as reader:
            for record in self.dataset.records if records is None else records:
                key = (self.split.value, record.image_id)
                yield record, reader.read(*key) if key in reader else None

    def proposals(self) -> Iterator[tuple[ImageId, Proposals]]:
        """Stream (image id, proposals) of each image that was readable, as input for the metrics."""
        for record, stored in self.read():
            if stored is not None:
                yield record.image_id, stored.proposals


def open_split(path: Path, split: Split, dataset: Dataset) -> StoredSplit:
    """Open one split of a complete proposals.lmdb.

    Raises ArtefactError if it is missing, unfinished, or made from other images or objects.
    """
    stored = StoredSplit(path, split, dataset)
    verify_input(stored.manifest, path, split, dataset)
    return stored
