"""A minimal reader and writer of protobuf's wire format, which splits untrusted files into fields.

A full parser makes an object for each message, and a message needs only two bytes. So a hostile file of one gigabyte
could use a hundred gigabytes of memory. Therefore this module splits the large parts of a .caffemodel, its layers and
blobs, by their lengths, and only small parts are given to the parser.

See protobuf.dev, "Encoding": a field is a varint of 8 * number + wire type, then the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 20_000
"""Limit on the fields of one message. A net of a thousand layers has a thousand."""
MAX_VARINT = 10  # bytes: 64 bits, 7 per byte


class Field(NamedTuple):
    """A field of a message: number, wire type, bytes of the value, and all bytes including tag and length."""

    number: int
    wire_type: int
    value: memoryview
    raw: memoryview


def read_fields(message: memoryview, where: str) -> Iterator[Field]:
    """The fields of a message in order, as views without copies; an empty message has none.

    Raises ValueError, which begins with `where`, for a field that extends beyond the message, a group, a broken varint,
    or more than MAX_FIELDS fields.
    """
    index = count = 0
    while index < len(message):
        begin, (tag, index) = index, read_varint(message, index, where)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH:
            length, index = read_varint(message, index, where)
        elif wire_type == VARINT:
            length = read_varint(message, index, where)[1] - index
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError(f"{where}: expected a protobuf field, got wire type {wire_type} at byte {begin}")
        if length > len(message) - index:
            raise ValueError(
                f"{where}: field {number} at byte {begin}: expected {length} bytes, got {len(message) - index}; "
                "the file is truncated or has another format"
            )
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"{where}: expected at most {MAX_FIELDS} fields, got more")
        yield Field(number, wire_type, message[index : index + length], message[begin : index + length])
        index += length


def read_varint(message: memoryview, index: int, where: str) -> tuple[int, int]:
    """The varint at `index`, and the index after it. Raises ValueError if it does not end."""
    value = 0
    for i, byte in enumerate(message[index : index + MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (1 << 64) - 1, index + i + 1
    raise ValueError(
        f"{where}: expected a varint at byte {index}, got one without an end; the file is truncated or damaged"
    )


def write_varint(value: int) -> bytes:
    """Encode a non-negative number as a varint."""
    septets = []
    while value > 0x7F:
        septets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*septets, value])


def write_length(number: int, value: bytes) -> bytes:
    """Encode a length-delimited field: a string, a message, or packed numbers."""
    return write_varint(number << 3 | LENGTH) + write_varint(len(value)) + value
