"""The pages of an LMDB: those of sound files hold, and no damaged one reaches LMDB, which it could kill."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detpipe.storage.lmdb_pages import check_pages
from detpipe.storage.lmdb_store import DatabaseError, LmdbReader, LmdbWriter

PAGE = 4096
ENTRIES_FIELD, ROOT_FIELD, TRANSACTION_FIELD = 120, 128, 144


def fill(path: Path, records: int, size: int) -> Path:
    """Records of `size` bytes and more, in several transactions, all written over: old pages stay in the file."""
    for _ in range(2):
        with LmdbWriter(path, transaction=7) as writer:
            for number in range(records):
                writer.put(f"{number:05d}".encode(), bytes(size + number % 50))
    return path


def newest_head(data: bytes) -> int:
    return max((0, PAGE), key=lambda at: struct.unpack_from("<Q", data, at + TRANSACTION_FIELD)[0])


def spoil(folder: Path, at: int, value: bytes) -> None:
    data = bytearray((folder / "data.mdb").read_bytes())
    data[at : at + len(value)] = value
    (folder / "data.mdb").write_bytes(data)


@pytest.mark.parametrize(("records", "size"), [(0, 0), (1, 5), (300, 10), (300, 3000), (40, 20_000)])
def test_sound_files_hold(tmp_path: Path, records: int, size: int) -> None:
    assert check_pages(fill(tmp_path / "db", records, size)) == records


def test_caffes_own_file_holds(shared_data: Path) -> None:
    assert check_pages(shared_data / "caffe/datum_lmdb_sujack1/train_lmdb") == 12


def test_what_is_claimed_is_refused(tmp_path: Path) -> None:
    """A value of 4 GB, a root outside of the file, more records than there are, a page that is its own child."""
    folder = fill(tmp_path / "db", 300, 3000)
    whole = (folder / "data.mdb").read_bytes()
    head = newest_head(whole)
    root = struct.unpack_from("<Q", whole, head + ROOT_FIELD)[0]
    child = root * PAGE + struct.unpack_from("<H", whole, root * PAGE + 16)[0]
    leaf = struct.unpack_from("<I", whole, child)[0]
    node = leaf * PAGE + struct.unpack_from("<H", whole, leaf * PAGE + 16)[0]
    for at, value, wanted in (
        (node, b"\xff" * 4, "expected pages 2 to"),
        (head + ROOT_FIELD, struct.pack("<Q", 1 << 40), "expected pages 2 to"),
        (head + ENTRIES_FIELD, struct.pack("<Q", 1 << 63), "expected 9223372036854775808 records, got 300"),
        (child, struct.pack("<I", root), f"page {root} is used twice"),
        (leaf * PAGE + 16, b"\xfe\xff", f"page {leaf}: expected records inside the page"),
        (16, b"\0", "expected an LMDB meta page at byte 0"),
    ):
        spoil(folder, at, value)
        with pytest.raises(DatabaseError, match=wanted):
            check_pages(folder)
        (folder / "data.mdb").write_bytes(whole)


def test_what_is_cut_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "db", 300, 10)
    whole = (folder / "data.mdb").read_bytes()
    for left, wanted in (
        (len(whole) // 2, "truncated"),
        (PAGE, "truncated"),
        (100, "got 100 bytes"),
        (0, "got 0 bytes"),
    ):
        (folder / "data.mdb").write_bytes(whole[:left])
        with pytest.raises(DatabaseError, match=wanted):
            check_pages(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_passes_can_be_read(tmp_path: Path, data: st.DataObject) -> None:
    """A byte changed in a head or a page: an error, or as many keys and values as were said."""
    folder = tmp_path / "db"
    if not folder.exists():
        fill(folder, 60, 900)
        (tmp_path / "whole").write_bytes((folder / "data.mdb").read_bytes())
    whole = (tmp_path / "whole").read_bytes()
    page = data.draw(st.integers(0, len(whole) // PAGE - 1))
    (folder / "data.mdb").write_bytes(whole)
    spoil(folder, page * PAGE + data.draw(st.integers(0, 160)), bytes([data.draw(st.integers(0, 255))]))
    try:
        records = check_pages(folder)
    except DatabaseError:
        return
    with LmdbReader(folder) as reader:
        assert len([bytes(value) for _, value in reader.views()]) == records
