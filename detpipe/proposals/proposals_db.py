"""proposals.lmdb: one ProposalRecord (storage/messages.proto) an image, under the key "split/image id"."""

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
from google.protobuf.unknown_fields import UnknownFieldSet

from detpipe.datasets.image_file import BrokenImageError, file_digest, read_image
from detpipe.proposals.box_columns import from_columns, scale_of, snapped, to_columns
from detpipe.proposals.proposer import ImportedBoxesError, Proposer, SourceArray
from detpipe.storage.lmdb_store import MAX_KEY, LmdbReader, LmdbWriter
from detpipe.storage.messages_pb2 import ProposalRecord
from detpipe.structures import GroundTruth, ImageId, ImageRecord, Proposals


class CorruptRecordError(ValueError):
    """A record whose bytes are not those that were written."""


@dataclass(frozen=True, eq=False)
class StoredProposals:
    """A record: the proposals, the (height, width) of the decoded image, and the BLAKE2b-128 of its file.

    sources: (N,) uint8, which of the lists that were joined each box came from (their names are in the manifest's
    settings); None where no lists were joined.
    """

    proposals: Proposals
    image_size: tuple[int, int]
    image_digest: bytes
    sources: SourceArray | None = None


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
    image_size = (image.shape[0], image.shape[1])
    try:
        found = snapped(proposer.propose_sourced(image, record, ground_truth), image_size)
    except ImportedBoxesError as error:
        return BadImage(str(error))
    if proposer.max_proposals is not None:
        found = found.top(proposer.max_proposals)
    return serialize_proposals(StoredProposals(found.proposals, image_size, digest, found.sources))


def serialize_proposals(stored: StoredProposals) -> bytes:
    """The bytes of a ProposalRecord; the same for the same proposals.

    Raises ValueError for boxes that would not be read back as they are: `box_columns.snapped` makes them so.
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
    """The inverse of `serialize_proposals`. name: of the record, for the error.

    Raises CorruptRecordError unless checksum, lengths, order and coordinates are those of proposals in their image.
    """
    message = ProposalRecord()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise _corrupt(name, f"no protobuf message ({error})") from error
    unknown = UnknownFieldSet(message)
    if any(unknown[place].field_number == _OLD_BOXES for place in range(len(unknown))):
        raise _corrupt(name, "boxes as float32, the form of an older detpipe")
    _check_lengths(message, name)
    if _crc(message) != message.crc:
        raise _corrupt(name, "another checksum")
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


_OLD_BOXES = 3
"""The field of the boxes in databases of the first form."""


def _check_lengths(message: ProposalRecord, name: str) -> None:
    columns = (message.x1s, message.y1s, message.x2s, message.y2s)
    count, rest = divmod(len(message.scores), 4)
    sources_fit = not message.HasField("sources") or len(message.sources) == count
    if (
        rest
        or any(len(column) != 2 * count for column in columns)
        or not sources_fit
        or len(message.image_digest) != 16
    ):
        parts = (*columns, message.scores, message.sources, message.image_digest)
        lengths = ", ".join(str(len(part)) for part in parts)
        raise _corrupt(name, f"four columns, scores, sources and digest of {lengths} bytes")


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


def find_database(place: str | Path) -> Path:
    """The proposals.lmdb that a person means: itself, or the run folder that it stands in.

    Raises FileNotFoundError where there is none.
    """
    for path in (Path(place), Path(place) / "proposals.lmdb"):
        if (path / "data.mdb").is_file():
            return path
    raise FileNotFoundError(
        f"{place}: expected a proposals.lmdb or a run folder with one, got neither; run propose first"
    )


class ProposalsReader:
    """Reads records. Picklable; opens the database on its first use in each process.

    Raises storage's DatabaseError where there is no database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = LmdbReader(path)

    def read(self, split: str, image_id: ImageId) -> StoredProposals:
        """The proposals of an image. Raises KeyError where there are none, CorruptRecordError for broken bytes."""
        key = _key(split, image_id)
        return parse_proposals(self._reader.get(key), f"{self._reader.path}, record {key!r}")

    def raw(self, split: str, image_id: ImageId) -> bytes:
        """The bytes of an image's record, not looked at. Raises KeyError where there are none."""
        return self._reader.get(_key(split, image_id))

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Every record as it is, in the order of the keys: ("split/image id", bytes), to be given to `parse_proposals`.

        A long image id ends in a digest, see `_key`.
        """
        for key, value in self._reader.items():
            yield key.decode(errors="surrogateescape"), value

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
    # A file name that is no UTF-8 gives its own bytes, as the file system has them.
    name = f"{split}/{image_id}".encode("utf-8", "surrogateescape")
    if len(name) <= MAX_KEY:
        return name
    digest = hashlib.blake2b(name, digest_size=16).hexdigest().encode()
    return name[: MAX_KEY - len(digest)] + digest


def _crc(message: ProposalRecord) -> int:
    """Of all other fields. The numbers stand in front as text, each column's length among them."""
    parts = (message.x1s, message.y1s, message.x2s, message.y2s, message.scores, message.sources, message.image_digest)
    numbers = (message.height, message.width, message.scale, message.HasField("sources"), *map(len, parts))
    crc = zlib.crc32(" ".join(str(int(number)) for number in numbers).encode())
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _corrupt(name: str, found: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"{name}: expected the proposals of an image as they were written, got {found}; "
        "run `detpipe propose` again with overwrite=true"
    )
