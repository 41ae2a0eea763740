"""proposals.lmdb: one ProposalRecord (storage/messages.proto) an image, under the key "split/image id"."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from google.protobuf.message import DecodeError

from detpipe.datasets.image_file import BrokenImageError, file_digest, read_image
from detpipe.proposals.imported import ImportedBoxesError
from detpipe.proposals.proposer import Proposer
from detpipe.storage.lmdb_store import MAX_KEY, LmdbReader, LmdbWriter
from detpipe.storage.messages_pb2 import ProposalRecord
from detpipe.structures import GroundTruth, ImageId, ImageRecord, Proposals


class CorruptRecordError(ValueError):
    """A record whose bytes are not those that were written."""


@dataclass(frozen=True, eq=False)
class StoredProposals:
    """A record: the proposals, the (height, width) of the decoded image, and the BLAKE2b-128 of its file."""

    proposals: Proposals
    image_size: tuple[int, int]
    image_digest: bytes


@dataclass(frozen=True)
class BadImage:
    """Why an image has no proposals: its file, or what was imported for it, can't be used."""

    reason: str


class ProposeTask(NamedTuple):
    """What a worker needs for one image."""

    proposer: Proposer
    record: ImageRecord
    ground_truth: GroundTruth | None

    def describe(self) -> str:
        """The file, for messages."""
        return str(self.record.path)


def propose_task(task: ProposeTask) -> bytes | BadImage:
    """`propose_image` of a task. It stands here, and not with the command, so that workers don't import torch."""
    return propose_image(task.proposer, task.record, task.ground_truth)


def propose_image(proposer: Proposer, record: ImageRecord, ground_truth: GroundTruth | None) -> bytes | BadImage:
    """All of a worker's work: read the image, propose, and give the bytes of its ProposalRecord.

    An image that can't be read, or whose imported boxes are missing or wrong, gives a BadImage; other errors are those
    of the settings, and are raised.
    """
    try:
        image = read_image(record.path)
        digest = file_digest(record.path)
    except (BrokenImageError, OSError) as error:
        return BadImage(str(error))
    try:
        proposals = proposer.propose(image, record, ground_truth)
    except ImportedBoxesError as error:
        return BadImage(str(error))
    if proposer.max_proposals is not None:
        proposals = proposals.top(proposer.max_proposals)
    return serialize_proposals(StoredProposals(proposals, (image.shape[0], image.shape[1]), digest))


def serialize_proposals(stored: StoredProposals) -> bytes:
    """The bytes of a ProposalRecord; the same for the same proposals."""
    boxes = stored.proposals.boxes.astype("<f4").tobytes()
    scores = stored.proposals.scores.astype("<f4").tobytes()
    message = ProposalRecord(
        height=stored.image_size[0],
        width=stored.image_size[1],
        boxes=boxes,
        scores=scores,
        image_digest=stored.image_digest,
        crc=_crc(boxes, scores),
    )
    return message.SerializeToString(deterministic=True)


def parse_proposals(data: bytes, name: str = "proposal record") -> StoredProposals:
    """The inverse of `serialize_proposals`. name: of the record, for the error.

    Raises CorruptRecordError unless checksum, lengths, order and coordinates are those of proposals in their image.
    """
    message = ProposalRecord()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise _corrupt(name, f"no protobuf message ({error})") from error
    if len(message.boxes) != 4 * len(message.scores) or len(message.scores) % 4 or len(message.image_digest) != 16:
        lengths = f"{len(message.boxes)}, {len(message.scores)} and {len(message.image_digest)}"
        raise _corrupt(name, f"boxes, scores and digest of {lengths} bytes")
    if _crc(message.boxes, message.scores) != message.crc:
        raise _corrupt(name, "another checksum")
    boxes = np.frombuffer(message.boxes, dtype="<f4").reshape(-1, 4).astype(np.float32)
    scores = np.frombuffer(message.scores, dtype="<f4").astype(np.float32)
    try:
        proposals = Proposals(boxes, scores)
    except ValueError as error:
        raise _corrupt(name, str(error)) from error
    height, width = message.height, message.width
    if height < 1 or width < 1 or (len(boxes) and (boxes.min() < 0 or (boxes > (width, height) * 2).any())):
        raise _corrupt(name, f"boxes outside an image of height {height} and width {width}")
    return StoredProposals(proposals, (height, width), message.image_digest)


class ProposalsWriter:
    """Writes records; an existing database is continued. What was committed survives a kill."""

    def __init__(self, path: Path) -> None:
        # Few records a transaction: a record is a second of work, and what is not committed is lost.
        self._writer = LmdbWriter(path, transaction=8)

    def put(self, split: str, image_id: ImageId, record: bytes) -> None:
        """Store the bytes that `propose_image` or `serialize_proposals` gave."""
        self._writer.put(_key(split, image_id), record)

    def __contains__(self, split_and_id: tuple[str, ImageId]) -> bool:
        return _key(*split_and_id) in self._writer

    def close(self) -> None:
        """Commit and close."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class ProposalsReader:
    """Reads records. Picklable; opens the database on its first use in each process.

    Raises storage's DatabaseError where there is no database.
    """

    def __init__(self, path: Path) -> None:
        self._reader = LmdbReader(path)

    def read(self, split: str, image_id: ImageId) -> StoredProposals:
        """The proposals of an image. Raises KeyError where there are none, CorruptRecordError for broken bytes."""
        key = _key(split, image_id)
        return parse_proposals(self._reader.get(key), f"{self._reader.path}, record {key!r}")

    def __contains__(self, split_and_id: tuple[str, ImageId]) -> bool:
        return _key(*split_and_id) in self._reader

    def __len__(self) -> int:
        return len(self._reader)

    def close(self) -> None:
        """Give the database back; a later read opens it again."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(split: str, image_id: ImageId) -> bytes:
    """The key of an image; a name too long for LMDB ends in the digest of all of it."""
    name = f"{split}/{image_id}".encode()
    if len(name) <= MAX_KEY:
        return name
    digest = hashlib.blake2b(name, digest_size=16).hexdigest().encode()
    return name[: MAX_KEY - len(digest)] + digest


def _crc(boxes: bytes, scores: bytes) -> int:
    return zlib.crc32(scores, zlib.crc32(boxes))


def _corrupt(name: str, found: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"{name}: wanted the proposals of an image as they were written, got {found}; "
        "the file is damaged: run `detpipe propose` again with overwrite=true"
    )
