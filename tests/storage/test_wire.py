from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.storage.wire import MAX_FIELDS, read_fields, read_varint, write_length, write_varint


def test_fields_by_hand() -> None:
    # 8 = field 1, varint; 0x96 0x01 = 150. 0x12 = field 2, length 3. 0x1d = field 3, fixed32.
    message = memoryview(b"\x08\x96\x01" + b"\x12\x03abc" + b"\x1d\x00\x00\x80\x3f")
    fields = list(read_fields(message, "f"))
    assert [(f.number, f.wire_type, bytes(f.value)) for f in fields] == [
        (1, 0, b"\x96\x01"),
        (2, 2, b"abc"),
        (3, 5, b"\x00\x00\x80\x3f"),
    ]
    assert b"".join(bytes(f.raw) for f in fields) == bytes(message)
    assert list(read_fields(memoryview(b""), "f")) == []


@given(st.integers(0, 2**64 - 1))
def test_varint_comes_back(value: int) -> None:
    written = write_varint(value)
    assert read_varint(memoryview(written + b"\xff"), 0, "f") == (value, len(written))


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (b"\x12\x05abc", "expected 5 bytes, got 3"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "field 2"),
        (b"\x0b" * 50, "wire type 3"),  # groups without an end
        (b"\x08", "without an end"),
        (b"\xff" * 20, "without an end"),
        (b"\x1d\x00", "expected 4 bytes, got 1"),
        (b"\x08\x01" * (MAX_FIELDS + 1), "at most"),
    ],
)
def test_broken_messages(message: bytes, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^file: .*{wrong}"):
        list(read_fields(memoryview(message), "file"))


def test_a_written_field_is_read() -> None:
    (field,) = read_fields(memoryview(write_length(100, b"x" * 300)), "f")
    assert (field.number, len(field.value)) == (100, 300)
