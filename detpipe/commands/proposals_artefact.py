"""What the commands that look into proposals share: which proposals.lmdb, of which data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detpipe.commands.command import Command, verify_input
from detpipe.datasets.source import Split
from detpipe.proposals.proposals_db import ProposalsReader, StoredProposals, find_database
from detpipe.storage.manifest import read_manifest
from detpipe.structures import Dataset, ImageRecord


@dataclass(kw_only=True)
class ProposalsCommand(Command):
    """The settings of every command that looks into proposals."""

    path: str | None = None
    """A proposals.lmdb, or a run folder with one; null: the one in run_dir."""

    @property
    def database(self) -> Path:
        """The proposals.lmdb. Raises FileNotFoundError where there is none."""
        return find_database(self.run_dir if self.path is None else self.path)


def split_of(name: str) -> Split:
    """A split by its name. Raises ValueError for another."""
    names = [split.value for split in Split]
    if name not in names:
        raise ValueError(f"split: wanted one of {', '.join(names)}, got {name!r}")
    return Split(name)


def load_split(config: ProposalsCommand, split: Split) -> Dataset:
    """The images of a split that the proposals were made on. Raises ArtefactError where they were made on others."""
    dataset = config.data_source.load(split)
    verify_input(read_manifest(config.database), config.database, split, dataset)
    return dataset


def stored_of_split(
    database: Path, split: Split, dataset: Dataset
) -> Iterator[tuple[ImageRecord, StoredProposals | None]]:
    """Each image of a split, in order, with its proposals: None for one that could not be read when they were made."""
    with ProposalsReader(database) as reader:
        for record in dataset.records:
            there = (split.value, record.image_id) in reader
            yield record, reader.read(split.value, record.image_id) if there else None
