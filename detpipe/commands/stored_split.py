"""The proposals of one split as a run folder keeps them, held against the data set they were made for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from detpipe.commands.command import RunFolder, verify_input
from detpipe.datasets.source import DatasetSource, Split
from detpipe.proposals.proposals_db import ProposalsReader
from detpipe.storage.manifest import Manifest, read_manifest
from detpipe.structures import Dataset, ImageId, Proposals


class SplitName(Enum):
    """Which images to look at."""

    test = "test"
    train = "train"
    val = "val"

    def load(self, source: DatasetSource) -> Dataset:
        """That split of the data set. Raises ValueError where it has none, and names those it has."""
        split = Split(self.value)
        if not source.has(split):
            there = [one.value for one in Split if source.has(one)]
            raise ValueError(f"split: wanted one that the data set has ({', '.join(there)}), got {self.value}")
        return source.load(split)


@dataclass(frozen=True, eq=False)
class StoredSplit:
    """A proposals.lmdb and one split in it. manifest: of the database."""

    path: Path
    split: Split
    dataset: Dataset
    manifest: Manifest

    @property
    def method(self) -> str:
        """The class of the proposer, "Gaussian" say; "unknown" where the manifest doesn't tell."""
        return str(self.manifest.settings.get("proposals", {}).get("method", "unknown"))

    def __iter__(self) -> Iterator[tuple[ImageId, Proposals]]:
        """Each image's proposals, streamed; images that could not be read have none and are left out."""
        with ProposalsReader(self.path) as reader:
            for record in self.dataset.records:
                if (self.split.value, record.image_id) in reader:
                    yield record.image_id, reader.read(self.split.value, record.image_id).proposals


def open_split(place: Path, split: SplitName, dataset: Dataset) -> StoredSplit:
    """The split of a run folder, or of the proposals.lmdb in it.

    Raises ArtefactError where it is missing, unfinished, or made from other images or objects.
    """
    path = place if place.suffix == ".lmdb" else RunFolder(place).proposals
    manifest = read_manifest(path)
    verify_input(manifest, path, Split(split.value), dataset)
    return StoredSplit(path, Split(split.value), dataset, manifest)
