"""proposals.lmdb: one ProposalRecord (storage/messages.proto) per image, with the key "split/image id"."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from google.protobuf.message import DecodeError

from detpipe.datasets.image_file import BrokenImageError, file_digest, read_image
from detpipe.proposals.box_columns import from_columns, scale_of, snapped, to_columns
from detpipe.proposals.proposer import ImportedBoxesError, Proposer, SourceArray
from detpipe.storage.lmdb_store import MAX_KEY, LmdbWriter
from detpipe.storage.messages_pb2 import ProposalRecord
from detpipe.storage.shard_index import is_lmdb
from detpipe.storage.sharded_lmdb import open_lmdb
from detpipe.structures import GroundTruth, ImageId, ImageRecord, Proposals


class CorruptRecordError(ValueError):
    """A record is damaged."""


@dataclass(frozen=True, eq=False)
class StoredProposals:
    """A record: the proposals, the (height, width) of the decoded image, and the BLAKE2b-128 of its file.

    sources: (N,) uint8, the index of each box's source in a fusion (their names are in the manifest's settings); None
    without a fusion.
    """

    proposals: Proposals
    image_size: tuple[int, int]
    image_digest: bytes
    sources: SourceArray | None = None


@dataclass(frozen=True)
class BadImage:
    """Why an image has no proposals: its file, or its imported boxes, can't be used."""

    reason: str


class ProposeTask(NamedTuple):
    """The input of a worker for one image."""

    proposer: Proposer
    record: ImageRecord
    ground_truth: GroundTruth | None

    def describe(self) -> str:
        """The file, for messages."""
        return str(self.record.path)


def propose_task(task: ProposeTask) -> bytes | BadImage:
    """`propose_image` for a task. It is here and not in the command, so that workers don't import torch."""
    return propose_image(task.proposer, task.record, task.ground_truth)


def propose_image(proposer: Proposer, record: ImageRecord, ground_truth: GroundTruth | None) -> bytes | BadImage:
    """Read the image, compute its proposals and return the bytes of its ProposalRecord.

    An image that can't be read, or whose imported boxes are missing or wrong, gives a BadImage. Other errors, which
    come from the settings, are raised.
    """
    try:
        image = read_image(record.path, record.options)
        digest = file_digest(record.path)
    except (BrokenImageError, OSError) as error:
        return BadImage(str(error))
    image_size = (image.shape[0], image.shape[1])
    try:
        found = snapped(proposer.propose_sourced(image, record, ground_truth), image_size)
    except ImportedBoxesError as error:
        return BadImage(str(error))
    if proposer.max_proposals is not None:
        found = found.top(proposer.max_proposals)
    return serialize_proposals(StoredProposals(found.proposals, image_size, digest, found.sources))


def serialize_proposals(stored: StoredProposals) -> bytes:
    """The bytes of a ProposalRecord. Equal proposals give equal bytes.

    Raises ValueError for boxes that rounding would change; `box_columns.snapped` rounds them first.
    """
    x1s, y1s, x2s, y2s = to_columns(stored.proposals.boxes, stored.image_size)
    message = ProposalRecord(
        height=stored.image_size[0],
        width=stored.image_size[1],
        scores=stored.proposals.scores.astype("<f4").tobytes(),
        image_digest=stored.image_digest,
        scale=scale_of(stored.image_size),
        x1s=x1s,
        y1s=y1s,
        x2s=x2s,
        y2s=y2s,
        sources=None if stored.sources is None else stored.sources.tobytes(),
    )
    message.crc = _crc(message)
    return message.SerializeToString(deterministic=True)


def parse_proposals(data: bytes, name: str = "proposal record") -> StoredProposals:
    """The inverse of `serialize_proposals`. name: the record's name, for errors.

    Raises CorruptRecordError for a wrong checksum or length, unsorted scores, or boxes outside the image.
    """
    message = ProposalRecord()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise _corrupt(name, f"no protobuf message ({error})") from error
    _check_lengths(message, name)
    if _crc(message) != message.crc:
        raise _corrupt(name, "a wrong checksum")
    image_size = (message.height, message.width)
    if min(image_size) < 1 or message.scale != scale_of(image_size):
        raise _corrupt(name, f"boxes at scale {message.scale} in an image of height and width {image_size}")
    boxes = from_columns((message.x1s, message.y1s, message.x2s, message.y2s), message.scale)
    try:
        proposals = Proposals(boxes, np.frombuffer(message.scores, dtype="<f4").astype(np.float32))
    except ValueError as error:
        raise _corrupt(name, str(error)) from error
    if not ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= (message.width, message.height))).all():
        raise _corrupt(name, f"boxes without area or outside an image of height and width {image_size}")
    sources = np.frombuffer(message.sources, dtype=np.uint8).copy() if message.HasField("sources") else None
    return StoredProposals(proposals, image_size, message.image_digest, sources)


def _check_lengths(message: ProposalRecord, name: str) -> None:
    count = len(message.scores) // 4
    n_sources = count if message.HasField("sources") else 0
    lengths = [len(part) for part in _parts(message)]
    if lengths != [*[2 * count] * 4, 4 * count, n_sources, 16]:
        found = ", ".join(map(str, lengths))
        raise _corrupt(name, f"four columns, scores, sources and digest of {found} bytes")


def _parts(message: ProposalRecord) -> tuple[bytes, ...]:
    columns = (message.x1s, message.y1s, message.x2s, message.y2s)
    return (*columns, message.scores, message.sources, message.image_digest)


class ProposalsWriter:
    """Writes records, and adds to an existing database. Committed records survive a kill."""

    def __init__(self, path: Path) -> None:
        # Few records per transaction: a record takes a second to compute, and uncommitted records are lost.
        self._writer = LmdbWriter(path, transaction=8)

    def put(self, split: str, image_id: ImageId, record: bytes) -> None:
        """Store the bytes that `propose_image` or `serialize_proposals` returned."""
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


def find_database(folder: str | Path) -> Path:
    """The proposals.lmdb at a path: the path itself, or the proposals.lmdb in a run folder.

    Raises FileNotFoundError if there is none.
    """
    for path in (Path(folder), Path(folder) / "proposals.lmdb"):
        if is_lmdb(path):
            return path
    raise FileNotFoundError(
        f"{folder}: expected a proposals.lmdb or a run folder with one, got neither; run propose first"
    )


class ProposalsReader:
    """Reads records. Picklable; opens the database on its first use in each process.

    Raises storage's DatabaseError if there is no database, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = open_lmdb(path)

    def read(self, split: str, image_id: ImageId) -> StoredProposals:
        """The proposals of an image. Raises KeyError if there are none, CorruptRecordError for a damaged record."""
        key = _key(split, image_id)
        return parse_proposals(self._reader.get(key), f"{self._reader.path}, record {key!r}")

    def raw(self, split: str, image_id: ImageId) -> bytes:
        """The bytes of an image's record, unchecked. Raises KeyError if there are none."""
        return self._reader.get(_key(split, image_id))

    def records(self) -> Iterator[tuple[str, bytes]]:
        """All records, unparsed, in the order of the keys: ("split/image id", bytes for `parse_proposals`).

        A long image id ends in a digest, see `_key`.
        """
        for key, value in self._reader.items():
            yield key.decode(errors="surrogateescape"), value

    def __contains__(self, split_and_id: tuple[str, ImageId]) -> bool:
        return _key(*split_and_id) in self._reader

    def __len__(self) -> int:
        return len(self._reader)

    def close(self) -> None:
        """Close the database; a later read opens it again."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _key(split: str, image_id: ImageId) -> bytes:
    """The key of an image. A name too long for LMDB is cut and ends in a digest of the whole name."""
    # A file name that is not valid UTF-8 keeps its bytes in the file system.
    name = f"{split}/{image_id}".encode("utf-8", "surrogateescape")
    if len(name) <= MAX_KEY:
        return name
    digest = hashlib.blake2b(name, digest_size=16).hexdigest().encode()
    return name[: MAX_KEY - len(digest)] + digest


def _crc(message: ProposalRecord) -> int:
    """The checksum of all other fields. The numbers and the lengths of the columns come first, as text."""
    parts = _parts(message)
    numbers = (message.height, message.width, message.scale, message.HasField("sources"), *map(len, parts))
    crc = zlib.crc32(" ".join(str(int(number)) for number in numbers).encode())
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _corrupt(name: str, found: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"{name}: expected an intact record of proposals, got {found}; run `detpipe propose` again with overwrite=true"
    )
