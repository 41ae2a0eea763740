"""Verifies the pages of an LMDB file before the LMDB library uses them.

LMDB maps its file into memory and trusts it. A damaged or hostile page can make it visit the same pages forever, read
beyond the end of the map, or fail an assertion; each may end the process with a signal. This module walks the trees in
the raw bytes. It reads no values outside the pages of the tree, except the first bytes of values on pages of their own.

The layout follows liblmdb 0.9's mdb.c (MDB_page, MDB_node, MDB_meta, MDB_db), little-endian, 64 bits.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from operator import lt
from pathlib import Path
from typing import Any, BinaryIO

from detpipe.storage.input_file import InputFileError, open_input

DATA = "data.mdb"
MAX_KEY = 511
"""Limit on the bytes of a key, compiled into LMDB."""
MAGIC, VERSION = 0xBEEFC0DE, 1
NO_PAGE = (1 << 64) - 1
MAX_DEPTH = 32
"""LMDB's own limit, CURSOR_STACK."""
_BRANCH, _LEAF, _OVERFLOW, _HEAD = 0x01, 0x02, 0x04, 0x08
_PAGE_SIZES = frozenset(1 << bits for bits in range(9, 16))
"""LMDB's page sizes are powers of two up to 32 KB; operating systems use 4 to 16 KB."""
_INTEGER_KEYS = 0x08  # flag of the first tree, which lists free pages
_ONE_FILE = 0x4000  # flag of a database that was made without a folder of its own; it has no other effect
_BIG_VALUE = 0x01  # flag of a node whose value is in overflow pages
_SIGNATURE = struct.Struct("<II")  # magic, version
_TREE = struct.Struct("<IHHQQQQQ")  # page size (of the first tree), flags, depth, three counts of pages, entries, root
_ENDS = struct.Struct("<QQ")  # last page, transaction
_PAGE = struct.Struct("<Q2xHHH")  # number, flags, lower, upper
_RUN = struct.Struct("<Q2xHI")  # of overflow pages: number, flags, count
_NODE = struct.Struct("<IHH")  # size, flags, bytes of the key; in a branch page: 48 bits of a page number
_NUMBER = struct.Struct("<Q")
_PAGE_HEAD = 16
_HEAD_END = 152
_START = 1 << 16
"""The two meta pages are within these bytes."""
_TRIES = 10
"""Number of walks through a file that another process changes meanwhile."""


class DatabaseError(ValueError):
    """A database is missing, incomplete, damaged, or not an LMDB."""


@dataclass(frozen=True)
class _Tree:
    """A tree in a meta page."""

    flags: int
    depth: int
    entries: int
    root: int


@dataclass(frozen=True)
class _Meta:
    """One of the two meta pages; the one with the later transaction is valid. page: bytes per page."""

    page: int
    free: _Tree
    main: _Tree
    last_page: int
    transaction: int


def is_begun(path: Path) -> bool:
    """Whether a folder has an LMDB to continue. A writer that was killed at once leaves an empty file."""
    file = path / DATA
    return file.is_file() and file.stat().st_size > 0


def check_header(folder: Path) -> int:
    """Verify the two meta pages of `folder`/data.mdb, so that LMDB can open it. Returns the newest transaction.

    Raises DatabaseError.
    """
    path = folder / DATA
    with _open(path) as file:
        return _newest_meta(os.pread(file.fileno(), _START, 0), path).transaction


def check_pages(folder: Path, *, for_writing: bool = False) -> int:
    """Verify `folder`/data.mdb and return its number of records (0 for an empty database).

    Afterwards it is certain that all keys and values lie within the file, that each page is used once, that the keys
    are in order, that there is one value per key, and that the number of records is correct. for_writing: also verify
    the list of free pages, which a reader does not use. Uses one byte of memory per page.
    A file that another process writes meanwhile is walked again. Raises DatabaseError, which names the page, for a
    damaged tree.
    """
    path = folder / DATA
    for left in reversed(range(_TRIES)):
        with _open(path) as file:
            # Read before the file is mapped: so the map has all pages that the meta pages refer to.
            start = os.pread(file.fileno(), _START, 0)
            try:
                meta = _newest_meta(start, path)
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return _Walk(data, path, meta).run(for_writing)
            except DatabaseError:
                if not left or os.pread(file.fileno(), _START, 0) == start:
                    raise
    raise AssertionError


def _open(path: Path) -> BinaryIO:
    try:
        return open_input(path, "an LMDB")
    except InputFileError as error:
        raise DatabaseError(str(error)) from error


def _newest_meta(start: bytes, path: Path) -> _Meta:
    """The valid meta page. start: the first _START bytes of the file, or the whole file."""
    if len(start) < _HEAD_END:
        raise DatabaseError(f"{path}: expected an LMDB, got {len(start)} bytes; copy or make it again")
    first = _read_meta(start, 0, 0, path)
    # The second meta page follows the first; the first one states the page size.
    second = _read_meta(start, 1, first.page, path)
    if second.page != first.page:
        raise _fault(path, "expected one page size, got two in its meta pages")
    place, newest = (1, second) if second.transaction > first.transaction else (0, first)
    if newest.transaction % 2 != place:  # LMDB also finds the page of a transaction by this rule
        raise _fault(path, f"expected transaction {newest.transaction} in the other meta page")
    return newest


def _read_meta(start: bytes, number: int, at: int, path: Path) -> _Meta:
    if at + _HEAD_END > len(start):
        raise _fault(path, "expected two meta pages, got a truncated file")
    own, flags, _, _ = _PAGE.unpack_from(start, at)
    magic, version = _SIGNATURE.unpack_from(start, at + 16)
    page, kind, *free = _TREE.unpack_from(start, at + 40)
    pad, main_flags, *main = _TREE.unpack_from(start, at + 88)
    is_head = own == number and flags == _HEAD and magic == MAGIC and version == VERSION
    if not is_head or page not in _PAGE_SIZES or kind & ~_ONE_FILE != _INTEGER_KEYS:
        raise _fault(path, f"expected an LMDB meta page at byte {at}, got other bytes")
    last_page, transaction = _ENDS.unpack_from(start, at + 136)
    return _Meta(page, _tree(0, free), _tree(pad | main_flags, main), last_page, transaction)


def _tree(flags: int, numbers: list[Any]) -> _Tree:
    depth, _, _, _, entries, root = numbers
    return _Tree(flags, depth, entries, root)


def _fault(path: Path, what: str) -> DatabaseError:
    return DatabaseError(f"{path}: damaged: {what}; copy or make it again")


class _Walk:
    """Visits the pages of a file, each at most once."""

    def __init__(self, data: mmap.mmap, path: Path, meta: _Meta) -> None:
        self._data, self._path, self._meta = data, path, meta
        self._file_pages = len(data) // meta.page
        # A file may be longer than its meta page says; LMDB refuses pages after the last one. It may be shorter, too:
        # LMDB does not write free pages at the end.
        self._pages = min(self._file_pages, meta.last_page + 1)
        self._free_beyond: set[int] = set()
        self._seen = mmap.mmap(-1, max(self._pages, 1))  # zeros, which take memory only where they are changed

    def run(self, for_writing: bool) -> int:
        if self._meta.main.flags:
            raise self._fault("expected one value per key, got an LMDB of another kind")
        entries = self._walk(self._meta.main, is_free_list=False)
        if for_writing:
            self._check_free_pages()
        return entries

    def _walk(self, tree: _Tree, *, is_free_list: bool) -> int:
        """Visit a tree, compare its keys and its number of records, and return this number."""
        if tree.root == NO_PAGE:
            if tree.entries or tree.depth:
                raise self._fault(f"expected {tree.entries} records, got no pages")
            return 0
        if not 0 < tree.depth <= MAX_DEPTH:
            raise self._fault(f"expected a tree of depth 1 to {MAX_DEPTH}, got {tree.depth}")
        entries = 0
        # Pages with their level, and the bounds of their keys: the first possible one, and the first one after them.
        left: list[tuple[int, int, Any, Any]] = [(tree.root, 1, None, None)]
        while left:
            number, level, low, high = left.pop()
            if level < tree.depth:
                children, keys = self._branch(number, is_free_list)
                bounds = [low, *keys, high]
                self._check_order(number, bounds[low is None : len(bounds) - (high is None)])
                left += [
                    (child, level + 1, *between) for child, *between in zip(children, bounds, bounds[1:], strict=False)
                ]
            else:
                keys = self._leaf(number, is_free_list)
                entries += len(keys)
                if low is not None and keys[0] < low:
                    raise self._fault(f"page {number}: expected keys from {low!r}, got {keys[0]!r}")
                self._check_order(number, keys if high is None else [*keys, high])
        if entries != tree.entries:
            raise self._fault(f"expected {tree.entries} records, got {entries} in its pages")
        return entries

    def _check_order(self, number: int, keys: list[Any]) -> None:
        if not all(map(lt, keys, keys[1:])):
            raise self._fault(f"page {number}: expected keys in ascending order, got others")

    def _branch(self, number: int, is_free_list: bool) -> tuple[list[int], list[Any]]:
        """The pages below a branch page, and the keys that separate them: one fewer than pages."""
        page, offsets, upper = self._nodes(number, _BRANCH)
        if len(offsets) < 2:
            raise self._fault(f"page {number}: expected two pages or more below it, got {len(offsets)}")
        children, keys, spans = [], [], []
        for offset in offsets:
            child, high, key = _NODE.unpack_from(page, offset)
            begin = offset + _NODE.size
            children.append(child | high << 32)
            keys.append(page[begin : begin + key])
            spans.append((offset, begin + key + key % 2))
        self._check_spans(number, spans, upper)
        return children, self._as_keys(number, keys[1:], is_free_list)  # LMDB ignores the first one

    def _leaf(self, number: int, is_free_list: bool) -> list[Any]:
        """The keys of a leaf. Checks that its values lie in it, or in overflow pages that are used once."""
        page, offsets, upper = self._nodes(number, _LEAF)
        keys, spans, values = [], [], []
        for offset in offsets:
            length, flags, key = _NODE.unpack_from(page, offset)
            begin = offset + _NODE.size
            if flags & ~_BIG_VALUE:
                raise self._fault(f"page {number}: expected one value per record, got several")
            value = begin + key
            end = value + (_NUMBER.size if flags else length)
            keys.append(page[begin:value])
            spans.append((offset, end + end % 2))
            values.append((flags, value, length))
        self._check_spans(number, spans, upper)
        for flags, value, length in values:
            if flags:
                self._check_big_value(page, value, length, is_free_list)
            elif is_free_list:
                self._check_free_list(page[value : value + length])
        return self._as_keys(number, keys, is_free_list)

    def _nodes(self, number: int, kind: int) -> tuple[bytes, tuple[int, ...], int]:
        """The bytes of a page, the offsets of its nodes, and the offset where the nodes begin.

        The header of each node lies within the page.
        """
        self._visit(number, 1)
        size, begin = self._meta.page, number * self._meta.page
        page = self._data[begin : begin + size]
        own, flags, lower, upper = _PAGE.unpack_from(page, 0)
        if own != number or flags != kind:
            raise self._fault(f"page {number}: expected a page of the tree, got another kind")
        if not _PAGE_HEAD < lower <= upper <= size or lower % 2:
            raise self._fault(f"page {number}: expected a list of records, got invalid bounds")
        offsets = struct.unpack_from(f"<{(lower - _PAGE_HEAD) // 2}H", page, _PAGE_HEAD)
        if min(offsets) < upper or max(offsets) > size - _NODE.size:
            raise self._fault(f"page {number}: expected records inside the page, got one outside")
        return page, offsets, upper

    def _check_spans(self, number: int, spans: list[tuple[int, int]], upper: int) -> None:
        """Check that the nodes fill the end of the page without gaps and overlaps, as LMDB's deletion requires."""
        spans.sort()
        begins, ends = zip(*spans, strict=True)
        if begins != (upper, *ends[:-1]) or ends[-1] != self._meta.page:
            raise self._fault(f"page {number}: expected records side by side inside the page, got others")

    def _as_keys(self, number: int, keys: list[bytes], is_free_list: bool) -> list[Any]:
        """Keys as LMDB compares them: bytes, or the numbers of transactions."""
        lengths = set(map(len, keys))
        if is_free_list:
            if lengths != {_NUMBER.size}:
                raise self._fault(f"page {number}: expected keys of {_NUMBER.size} bytes, got others")
            return [_NUMBER.unpack(key)[0] for key in keys]
        if min(lengths) < 1 or max(lengths) > MAX_KEY:
            raise self._fault(f"page {number}: expected keys of 1 to {MAX_KEY} bytes, got another length")
        return keys

    def _check_big_value(self, page: bytes, at: int, length: int, is_free_list: bool) -> None:
        """Check the overflow pages of a value. at: where the leaf has the number of the first of them."""
        (number,) = _NUMBER.unpack_from(page, at)
        if not 2 <= number < self._pages:
            raise self._outside(number, 1)
        begin = number * self._meta.page
        own, flags, count = _RUN.unpack_from(self._data, begin)
        if own != number or flags != _OVERFLOW:
            raise self._fault(f"page {number}: expected a page of a long value, got another kind")
        if count * self._meta.page < _PAGE_HEAD + length:
            raise self._fault(f"page {number}: expected a value of {length} bytes, got {count} pages")
        self._visit(number, count)
        if is_free_list:
            self._check_free_list(self._data[begin + _PAGE_HEAD : begin + _PAGE_HEAD + length])

    def _check_free_list(self, value: bytes) -> None:
        """Check a list of free pages: a count, then descending numbers of pages that are used nowhere else."""
        words = struct.unpack(f"<{len(value) // _NUMBER.size}Q", value[: len(value) // _NUMBER.size * _NUMBER.size])
        if not words or words[0] >= len(words):
            raise self._fault("expected a list of free pages, got other bytes")
        pages = words[1 : words[0] + 1]
        if not all(map(lt, pages[1:], pages)):
            raise self._fault("expected free pages in descending order, got others")
        for number in pages:
            if self._file_pages <= number <= self._meta.last_page:
                self._free_beyond.add(number)
            else:
                self._visit(number, 1)

    def _check_free_pages(self) -> None:
        """Check the tree of free pages, with the pages of the main tree already visited."""
        self._walk(self._meta.free, is_free_list=True)
        beyond = max(self._meta.last_page + 1 - self._file_pages, 0)
        if len(self._free_beyond) != beyond:
            raise self._truncated()

    def _visit(self, number: int, count: int) -> None:
        """Check that these pages are in the file, after the two meta pages, and were not visited before."""
        if not 2 <= number <= self._pages - count:
            raise self._outside(number, count)
        if self._seen.find(b"\x01", number, number + count) >= 0:
            raise self._fault(f"page {number} is used twice")
        self._seen[number : number + count] = b"\x01" * count

    def _outside(self, number: int, count: int) -> DatabaseError:
        """The error for pages that are not in the file."""
        if 2 <= number <= self._meta.last_page + 1 - count:
            return self._truncated()
        return self._fault(f"expected pages 2 to {self._meta.last_page}, got {number} to {number + count - 1}")

    def _truncated(self) -> DatabaseError:
        return DatabaseError(
            f"{self._path}: expected {(self._meta.last_page + 1) * self._meta.page} bytes, got a truncated file of "
            f"{len(self._data)}; copy or make it again"
        )

    def _fault(self, what: str) -> DatabaseError:
        return _fault(self._path, what)
