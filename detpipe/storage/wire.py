"""Protobuf's wire format, as far as it takes to cut a file into its fields without believing what it claims.

A parser makes an object of each message that it meets, and two bytes suffice for a message: a hostile file of a
gigabyte would cost a hundred in memory. So the large parts of a .caffemodel, its layers and blobs, are cut out here,
by their lengths, and only what is small is given to the parser.

See protobuf.dev, "Encoding": a field is a varint of 8 * number + wire type, then the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 20_000
"""Fields in one message. A net of a thousand layers has a thousand."""
MAX_VARINT = 10  # bytes: 64 bits in sevens


class Field(NamedTuple):
    """A field of a message: its number and wire type, its value's bytes, and all of its bytes, tag and length too."""

    number: int
    wire_type: int
    value: memoryview
    raw: memoryview


def read_fields(message: memoryview, where: str) -> Iterator[Field]:
    """The fields of a message in their order; no bytes give none. Nothing is copied.

    Raises ValueError, beginning with `where`, for a field that runs beyond the message, a group, a broken varint,
    or more than MAX_FIELDS fields.
    """
    place = count = 0
    while place < len(message):
        begin, (tag, place) = place, read_varint(message, place, where)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH:
            length, place = read_varint(message, place, where)
        elif wire_type == VARINT:
            length = read_varint(message, place, where)[1] - place
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError(
                f"{where}: expected Caffe's fields, got wire type {wire_type} at byte {begin}, which has none"
            )
        if length > len(message) - place:
            raise ValueError(
                f"{where}: field {number} at byte {begin} claims {length} bytes, {len(message) - place} are left: "
                "the file is cut off, or no such file"
            )
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"{where}: expected at most {MAX_FIELDS} fields, got more")
        yield Field(number, wire_type, message[place : place + length], message[begin : place + length])
        place += length


def read_varint(message: memoryview, place: int, where: str) -> tuple[int, int]:
    """The varint at `place`, and the place after it. Raises ValueError where it has no end."""
    value = 0
    for i, byte in enumerate(message[place : place + MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (1 << 64) - 1, place + i + 1
    raise ValueError(
        f"{where}: expected a number at byte {place}, got one without an end: the file is cut off or broken"
    )


def write_varint(value: int) -> bytes:
    """The varint of a number that is not negative."""
    sevens = []
    while value > 0x7F:
        sevens.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*sevens, value])


def write_length(number: int, value: bytes) -> bytes:
    """A field of that number whose value has a length: a string, a message, packed numbers."""
    return write_varint(number << 3 | LENGTH) + write_varint(len(value)) + value
