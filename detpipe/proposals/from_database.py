"""Proposals that an earlier run stored, by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detpipe.backbone.caffe.joining import Split
from detpipe.datasets.image_file import file_digest
from detpipe.proposals.proposals_db import ProposalsReader, find_database
from detpipe.proposals.proposer import ImportedBoxesError, Proposer
from detpipe.storage.manifest import read_manifest
from detpipe.structures import Dataset, GroundTruth, Image, ImageRecord, Proposals


@dataclass(kw_only=True)
class StoredInDatabase(Proposer):
    """The boxes of a proposals.lmdb: those of an image with the same id and the same bytes, in whichever split."""

    path: str = ""
    """A proposals.lmdb, or a run folder with one."""

    @property
    def from_pixels(self) -> bool:
        """False: the boxes are those of known images."""
        return False

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Raise FileNotFoundError where there is no database, ArtefactError where it is not complete."""
        read_manifest(find_database(self.path))

    def inputs(self) -> Mapping[str, str]:
        """The digest of the database's manifest."""
        return {self.path: read_manifest(find_database(self.path)).digest}

    def __call__(self, image: Image) -> Proposals:  # noqa: ARG002
        """Raises ValueError: pixels don't tell which image this is."""
        raise ValueError(f"{self.path}: expected an image of a data set, with its id and file, got pixels alone")

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:  # noqa: ARG002
        """The stored boxes of an image.

        Raises ImportedBoxesError where there are none, or only of another file under this id; CorruptRecordError where
        the record is damaged.
        """
        digest = file_digest(record.path)
        # Opened for each image: a process can't hold an LMDB open twice, and who else reads this one isn't known here.
        with ProposalsReader(find_database(self.path)) as reader:
            there = [split.value for split in Split if (split.value, record.image_id) in reader]
            for stored in (reader.read(split, record.image_id) for split in there):
                if stored.image_digest == digest:
                    return stored.proposals if self.max_proposals is None else stored.proposals.top(self.max_proposals)
        found = f"those of another file (in {', '.join(there)}); did it change?" if there else "none"
        raise ImportedBoxesError(f"{self.path}: expected boxes of image {record.image_id} ({record.path}), got {found}")
