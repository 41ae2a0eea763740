"""What the commands that look into proposals share: which proposals.lmdb, and which split of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detpipe.commands.command import Command
from detpipe.commands.stored_split import StoredSplit, open_split
from detpipe.datasets.source import Split
from detpipe.proposals.proposals_db import find_database


@dataclass(kw_only=True)
class ProposalsCommand(Command):
    """The settings of every command that looks into proposals."""

    path: str | None = None
    """A proposals.lmdb, or a run folder with one; null: the one in run_dir."""

    @property
    def database(self) -> Path:
        """The proposals.lmdb. Raises FileNotFoundError where there is none."""
        return find_database(self.run_dir if self.path is None else self.path)


@dataclass(kw_only=True)
class SplitCommand(ProposalsCommand):
    """The settings of every command that looks at the proposals of one split."""

    split: Split = Split.test
    """train, val or test."""

    def open_split(self) -> StoredSplit:
        """That split of the database.

        Raises ValueError where the data set has no such split, ArtefactError where the proposals were made on another.
        """
        return open_split(self.database, self.split, self.data_source.load(self.split))
