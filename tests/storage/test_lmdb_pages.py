"""The pages of an LMDB: sound files pass, and no damaged page reaches the LMDB library, which could end the process."""

from __future__ import annotations

import multiprocessing
import os
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.storage.lmdb_pages import MAX_KEY, check_pages
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
        (node, b"\xff" * 4, "expected a value of 4294967295 bytes, got 1 pages"),
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
        (0, "got an empty file"),
    ):
        (folder / "data.mdb").write_bytes(whole[:left])
        with pytest.raises(DatabaseError, match=wanted):
            check_pages(folder)


def make(folder: Path, *, options: dict[str, Any] | None = None, count: int = 1000, size: int = 10) -> Path:
    """A database by LMDB itself: records in the main tree, or in the trees that `options` of open_db name."""
    with lmdb.open(str(folder), map_size=1 << 24, max_dbs=2) as environment:
        database = environment.open_db(None if options is None else b"name", **options or {})
        with environment.begin(write=True, db=database) as transaction:
            for number in range(count):
                transaction.put(b"%04d" % number, bytes(size))
    return folder


def nodes(data: bytes, page: int) -> list[int]:
    """The places of the nodes of a page in the file."""
    lower = struct.unpack_from("<H", data, page * PAGE + 12)[0]
    return [page * PAGE + at for at in struct.unpack_from(f"<{(lower - 16) // 2}H", data, page * PAGE + 16)]


def root_of(data: bytes) -> int:
    root: int = struct.unpack_from("<Q", data, newest_head(data) + ROOT_FIELD)[0]
    return root


def leaf_of(data: bytes) -> int:
    """The first leaf of a tree of two levels."""
    leaf: int = struct.unpack_from("<I", data, nodes(data, root_of(data))[0])[0]
    return leaf


def refused(folder: Path, whole: bytes, changes: list[tuple[int, bytes]], message: str) -> None:
    (folder / "data.mdb").write_bytes(whole)
    for at, value in changes:
        spoil(folder, at, value)
    with pytest.raises(DatabaseError, match=message) as caught:
        check_pages(folder)
    assert str(folder) in str(caught.value)
    assert "copy or make it again" in str(caught.value)


def test_keys_out_of_order_are_refused(tmp_path: Path) -> None:
    whole = (make(tmp_path / "db") / "data.mdb").read_bytes()
    leaf, root = nodes(whole, leaf_of(whole)), nodes(whole, root_of(whole))
    for changes, message in (
        ([(leaf[3] + 8, b"9999")], "ascending order"),  # within a leaf
        ([(leaf[-1] + 8, b"0999")], "ascending order"),  # not below the next separator
        ([(root[1] + 8, b"0000")], "ascending order|expected keys from"),  # a separator
        ([(root[2] + 8, whole[root[1] + 8 : root[1] + 12])], "ascending order|expected keys from"),
        ([(leaf[3] + 8, whole[leaf[2] + 8 : leaf[2] + 12])], "ascending order"),  # the same key twice
    ):
        refused(tmp_path / "db", whole, changes, message)


def test_a_branch_with_one_node_is_refused(tmp_path: Path) -> None:
    whole = (make(tmp_path / "db", count=200) / "data.mdb").read_bytes()
    begin = root_of(whole) * PAGE
    assert len(nodes(whole, root_of(whole))) == 2
    # The bounds of the page with its first node only, which then ends the page.
    first = whole[nodes(whole, root_of(whole))[0] :][:8]
    changes = [(begin + 12, struct.pack("<HH", 18, PAGE - 8)), (begin + 16, struct.pack("<H", PAGE - 8))]
    refused(tmp_path / "db", whole, [*changes, (begin + PAGE - 8, first)], "expected two pages or more below it, got 1")


def test_a_node_beyond_the_end_of_a_branch_is_refused(tmp_path: Path) -> None:
    whole = (make(tmp_path / "db") / "data.mdb").read_bytes()
    last = nodes(whole, root_of(whole))[-1]
    refused(tmp_path / "db", whole, [(last + 6, b"\xff\x7f")], "side by side inside the page")


def test_overflow_pages_of_another_kind_or_number_are_refused(tmp_path: Path) -> None:
    whole = (make(tmp_path / "db", count=3, size=9000) / "data.mdb").read_bytes()
    node = nodes(whole, root_of(whole))[0]
    page = struct.unpack_from("<Q", whole, node + 8 + 4)[0]
    for at, value, message in (
        (page * PAGE, b"\xee", "expected a page of a long value, got another kind"),
        (page * PAGE + 10, b"\x02", "expected a page of a long value, got another kind"),
        (page * PAGE + 12, b"\x02", "expected a value of 9000 bytes, got 2 pages"),
        (page * PAGE + 12, b"\x04", r"is used twice|expected pages|truncated"),
        (page * PAGE + 12, b"\xff\xff\xff\xff", "expected pages"),
    ):
        refused(tmp_path / "db", whole, [(at, value)], message)


@pytest.mark.parametrize("options", [{}, {"dupsort": True}])
def test_databases_inside_the_database_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = make(tmp_path / "db", options=options)
    refused(folder, (folder / "data.mdb").read_bytes(), [], "expected one value per record, got several")


def test_several_values_per_key_are_refused(tmp_path: Path) -> None:
    whole = (make(tmp_path / "db") / "data.mdb").read_bytes()
    refused(tmp_path / "db", whole, [(newest_head(whole) + 92, b"\x04")], "expected one value per key")


def test_keys_longer_than_lmdb_allows_are_refused(tmp_path: Path) -> None:
    """The value of a record becomes a part of its key, which is then too long."""
    whole = (make(tmp_path / "db", count=1, size=600) / "data.mdb").read_bytes()
    (node,) = nodes(whole, root_of(whole))
    for size, key in ((0, 604), (604, 0)):
        refused(tmp_path / "db", whole, [(node, struct.pack("<HHHH", size, 0, 0, key))], "expected keys of 1 to 511")


def test_a_meta_page_in_the_place_of_the_other_is_refused(tmp_path: Path) -> None:
    """LMDB also finds the meta page of a transaction by its number, and would find the unverified one."""
    whole = (make(tmp_path / "db") / "data.mdb").read_bytes()
    head = newest_head(whole)
    transaction = struct.unpack_from("<Q", whole, head + TRANSACTION_FIELD)[0]
    changes = [(head + TRANSACTION_FIELD, struct.pack("<Q", transaction + 1))]
    refused(tmp_path / "db", whole, changes, "in the other meta page")


def test_a_free_page_that_is_in_use_is_refused_for_writing_only(tmp_path: Path) -> None:
    folder = fill(tmp_path / "db", 300, 10)
    whole = (folder / "data.mdb").read_bytes()
    free = struct.unpack_from("<Q", whole, newest_head(whole) + 80)[0]
    node = nodes(whole, free)[-1]
    size, key = struct.unpack_from("<H4xH", whole, node)
    assert size >= 16
    spoil(folder, node + 8 + key + 8, struct.pack("<Q", root_of(whole)))
    assert check_pages(folder) == 300
    for work in (lambda: check_pages(folder, for_writing=True), lambda: LmdbWriter(folder)):
        with pytest.raises(DatabaseError, match=r"is used twice|descending order"):
            work()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30))
def test_what_lmdb_writes_passes(seed: int) -> None:
    """Records put and deleted in several transactions, in any sizes: also files that are shorter than LMDB claims."""
    numbers = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=1 << 27, sync=False) as environment:
            for _ in range(numbers.randrange(1, 5)):
                with environment.begin(write=True) as transaction:
                    for _ in range(numbers.randrange(200)):
                        key = b"%d" % numbers.randrange(300) * numbers.choice((1, 1, 20, 150))
                        if numbers.random() < 0.6:
                            size = numbers.choice((0, 1, 30, 900, 2100, 5000, 30_000))
                            transaction.put(key[:MAX_KEY], bytes(size))
                        else:
                            transaction.delete(key[:MAX_KEY])
            entries = environment.stat()["entries"]
        assert check_pages(Path(folder)) == check_pages(Path(folder), for_writing=True) == entries
        with LmdbReader(Path(folder)) as reader:
            assert len(list(reader.items())) == entries


def test_a_file_without_its_last_free_pages_is_sound(tmp_path: Path) -> None:
    """LMDB does not write pages that the same transaction freed, so a sound file may be shorter than it claims."""
    short = 0
    for seed in range(20):
        numbers, folder = random.Random(seed), tmp_path / str(seed)
        with lmdb.open(str(folder), map_size=1 << 27, sync=False) as environment:
            for _ in range(3):
                with environment.begin(write=True) as transaction:
                    for number in range(numbers.randrange(1, 400)):
                        transaction.put(b"%05d" % number, bytes(numbers.choice((10, 1000, 3000, 20_000))))
                    for number in range(numbers.randrange(400), 400):
                        transaction.delete(b"%05d" % number)
            pages, records = environment.info()["last_pgno"] + 1, environment.stat()["entries"]
        short += (folder / "data.mdb").stat().st_size < pages * PAGE
        assert check_pages(folder) == records
        with LmdbWriter(folder) as writer:
            writer.put(b"a", bytes(10_000))
        with LmdbReader(folder) as reader:
            assert len(list(reader.items())) == records + 1
    assert short


def test_a_database_that_was_one_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with (
        lmdb.open(str(tmp_path / "db" / "data.mdb"), subdir=False) as environment,
        environment.begin(write=True) as one,
    ):
        one.put(b"a", b"1")
    with LmdbReader(tmp_path / "db") as reader:
        assert dict(reader.items()) == {b"a": b"1"}


def write_for_a_while(folder: Path, ready: Any, enough: Any, parent: int) -> None:
    """Write without a pause until it is enough, or the parent has ended."""
    number = 0
    with LmdbWriter(folder, transaction=7) as writer:
        while not enough.is_set() and os.getppid() == parent:
            number += 1
            writer.put(b"%05d" % (number * 7919 % 3000), bytes(number % 5000))
            if number == 200:
                ready.set()


def test_a_file_that_is_being_written_is_read_without_false_alarms(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, enough = context.Event(), context.Event()
    child = context.Process(target=write_for_a_while, args=(tmp_path / "db", ready, enough, os.getpid()), daemon=True)
    child.start()
    assert ready.wait(30)
    try:
        for _ in range(60):
            with LmdbReader(tmp_path / "db") as reader:
                assert all(len(value) < 5000 for _, value in reader.items())
    finally:
        enough.set()
        child.join(30)
    assert child.exitcode == 0


def test_damaged_files_give_records_or_an_error_and_no_signal(tmp_path: Path) -> None:
    """The long run: python -m tests.storage.lmdb_fuzz FOLDER SEED COUNT."""
    command = [sys.executable, "-m", "tests.storage.lmdb_fuzz", str(tmp_path), "0", "300"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout[-40:], done.stderr)
    assert "'refused'" in done.stdout
    assert "'right'" in done.stdout
    assert "unclear" not in done.stdout
