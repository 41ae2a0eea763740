"""A proposer that reads the proposals.lmdb of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detpipe.datasets.image_file import AnyImage, file_digest
from detpipe.datasets.source import Split
from detpipe.proposals.proposals_db import ProposalsReader, find_database
from detpipe.proposals.proposer import ImportedBoxesError, Proposer
from detpipe.storage.manifest import read_manifest
from detpipe.structures import Dataset, GroundTruth, Image, ImageRecord, Proposals


@dataclass(kw_only=True)
class StoredInDatabase(Proposer):
    """The stored boxes of the image with the same id and the same file content, in any split of a proposals.lmdb."""

    path: str = ""
    """Path of a proposals.lmdb, or of a run folder that contains one."""

    @property
    def from_pixels(self) -> bool:
        """False: only the stored images have boxes."""
        return False

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Raise FileNotFoundError if there is no database, ArtefactError if it is not complete."""
        read_manifest(find_database(self.path))

    def inputs(self) -> Mapping[str, str]:
        """The digest of the database's manifest."""
        return {self.path: read_manifest(find_database(self.path)).digest}

    def __call__(self, image: AnyImage) -> Proposals:  # noqa: ARG002
        """Raises ValueError: pixels don't identify the image."""
        raise ValueError(f"{self.path}: expected an image of a data set, with its id and file, got pixels alone")

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:  # noqa: ARG002
        """The stored boxes of an image.

        Raises ImportedBoxesError if there are none, or only for a different file with this id, and CorruptRecordError
        if the record is damaged.
        """
        digest = file_digest(record.path)
        # Opened for each image: a process can't open an LMDB twice, and other code may read this one.
        with ProposalsReader(find_database(self.path)) as reader:
            there = [split.value for split in Split if (split.value, record.image_id) in reader]
            for stored in (reader.read(split, record.image_id) for split in there):
                if stored.image_digest == digest:
                    return stored.proposals if self.max_proposals is None else stored.proposals.top(self.max_proposals)
        found = f"boxes of another file (in {', '.join(there)}); did the image change?" if there else "none"
        raise ImportedBoxesError(f"{self.path}: expected boxes of image {record.image_id} ({record.path}), got {found}")
