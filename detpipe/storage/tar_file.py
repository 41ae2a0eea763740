"""The members of a tar file, by their places in it. Members are only read at their place, never extracted.

The formats are POSIX's (ustar, pax) and GNU's, without compression: a compressed tar can't be read from a place.
A tar of other people may claim anything. Sizes, counts and names are checked before they are used, links are named and
not followed, and what lies beyond the end of the file is a fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from detpipe.storage.input_file import InputFileError

BLOCK = 512
LARGEST_NAME = 1 << 20
"""Limit on the bytes of a header with a long name."""
MOST_MEMBERS = 5_000_000
"""Limit on the members of one file: their names are kept in memory."""
_NAME_LENGTH, _PART_LENGTH = 4096, 255
"""Limits of Linux on the bytes of a path and of each of its parts."""
_FILES, _WITHOUT_DATA = b"0\x007", b"123456"
_KINDS = {ord("1"): "a hard link", ord("2"): "a symbolic link", ord("S"): "a sparse file"}
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"(\xb5/\xfd": "unzstd"}
_FOLDER = ord("5")
_CUT = "is cut off; copy or download it again"


@dataclass(frozen=True)
class TarIndex:
    """Where the members of a tar file are.

    members: from name to (offset, bytes), in the order of the file; of two members with one name it has the last, as
    tar extracts them. faults: (name, reason) of each file that can't be read; the name of a damaged tar itself is "".
    """

    members: dict[str, tuple[int, int]]
    faults: tuple[tuple[str, str], ...]


def read_tar_index(file: BinaryIO, path: Path) -> TarIndex:
    """Find the members of an open tar file. A tar without members gives an empty index.

    What comes before damage is kept, and the damage is a fault. Raises InputFileError, which names `path`, if the file
    does not begin as a tar.
    """
    members: dict[str, tuple[int, int]] = {}
    faults: list[tuple[str, str]] = []
    try:
        for name, kind, offset, size in _headers(file, path):
            if kind == _FOLDER:
                continue
            plain, fault = safe_name(name)
            if kind in _KINDS:
                fault = f"is {_KINDS[kind]} in a tar, which is not followed; put the file itself into the tar"
            elif kind not in _FILES:
                continue
            if fault is not None:
                faults.append((plain, fault))
                continue
            if len(members) >= MOST_MEMBERS:
                faults.append(("", f"has more than {MOST_MEMBERS:,} members; divide it"))
                break
            members.pop(plain, None)
            members[plain] = offset, size
    except _DamageError as error:
        faults.append(("", str(error)))
    return TarIndex(members, tuple(faults))


def safe_name(name: str) -> tuple[str, str | None]:
    """A member's name without empty parts and ".", and the reason why it can't be a path below a folder, if so."""
    plain = "/".join(part for part in name.split("/") if part not in ("", "."))
    encoded = os.fsencode(plain) if "\0" not in plain else b""
    if not encoded or name.startswith("/") or ".." in plain.split("/"):
        return ascii(name[:200])[1:-1], "has a name that leads out of its file; rename it"
    if len(encoded) > _NAME_LENGTH or max(map(len, encoded.split(b"/"))) > _PART_LENGTH:
        return f"{plain[:100]}...", "has a name that is too long for a file; rename it"
    return plain, None


class _DamageError(Exception):
    """The tar is damaged from here on; the message says how."""


def _headers(file: BinaryIO, path: Path) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, type flag, offset and size of each member. Raises _DamageError."""
    length = file.seek(0, os.SEEK_END)
    place = 0
    long_name: str | None = None
    long_size: int | None = None
    is_sparse = False
    while True:
        file.seek(place)
        header = file.read(BLOCK)
        if place and not header:
            raise _DamageError(_CUT)  # a tar ends with blocks of zeros
        if header.count(0) == BLOCK:
            return
        if len(header) < BLOCK or not _has_checksum(header):
            if not place:
                raise InputFileError(f"{path}: expected a tar file, got {_other(header)}")
            raise _DamageError(f"{_CUT}, or damaged at byte {place:,}" if len(header) == BLOCK else _CUT)
        kind, size = header[156], _number(header[124:136])
        place += BLOCK
        if kind in b"xgLK":
            if size is None or size > LARGEST_NAME or place + size > length:
                raise _DamageError(f"is damaged at byte {place - BLOCK:,}: a long name has a wrong size")
            file.seek(place)
            data = file.read(size)
            if kind == ord("L"):
                long_name = _text(data)
            elif kind == ord("x"):
                long_name, long_size, is_sparse = _pax(data, place, long_name)
            place += -(-size // BLOCK) * BLOCK
            continue
        size = long_size if long_size is not None else size
        if kind in _WITHOUT_DATA:
            size = 0
        name = long_name if long_name is not None else _short_name(header)
        if size is None or place + size > length:
            raise _DamageError(f"{_CUT}: {ascii(name[:200])[1:-1]} is longer than the rest of the file")
        yield name, ord("S") if is_sparse else kind, place, size
        place += -(-size // BLOCK) * BLOCK
        long_name = long_size = None
        is_sparse = False


def _has_checksum(header: bytes) -> bool:
    """Whether the header states the sum of its bytes; old tars summed them with signs."""
    stated = _number(header[148:156])
    bytes_without = header[:148] + b" " * 8 + header[156:]
    return stated in (sum(bytes_without), sum(one - 256 * (one > 127) for one in bytes_without))


def _number(field: bytes) -> int | None:
    """A number of a header, octal or in GNU's base 256; None if it is negative or none."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not all(48 <= one < 56 for one in text):
        return None
    return int(text, 8) if text else 0


def _short_name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU has other fields in the place of the prefix.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes) -> str:
    return os.fsdecode(data.partition(b"\0")[0])


def _pax(data: bytes, place: int, name: str | None) -> tuple[str | None, int | None, bool]:
    """Name, size and whether the file is sparse, from records "LENGTH KEY=VALUE\\n". name: the one known before."""
    size, is_sparse = None, False
    while data:
        digits, space, _ = data[:20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[len(digits) + 1 : length - 1]
        if not len(digits) + 2 <= length <= len(data):
            raise _DamageError(f"is damaged at byte {place:,}: a record of a pax header has a wrong length")
        key, _, value = record.partition(b"=")
        if key == b"path":
            name = os.fsdecode(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                raise _DamageError(f"is damaged at byte {place:,}: a pax header has a wrong size")
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            is_sparse = True
        data = data[length:]
    return name, size, is_sparse


def _other(start: bytes) -> str:
    """What a file that is not a tar is, and what to do."""
    for magic, tool in _COMPRESSED.items():
        if start.startswith(magic):
            return f"a compressed one, which can't be read from a place; uncompress it: {tool} FILE"
    return "another or a damaged file; make the tar again"
