"""Verifies the pages of an LMDB file before the LMDB library uses them.

LMDB maps its file into memory and trusts it. A damaged or hostile page can make it visit the same pages forever, or
read beyond the end of the map, which kills the process (SIGBUS, SIGSEGV). This module walks the tree in the raw bytes.
It reads no values outside the pages of the tree.

The layout is that of liblmdb 0.9's mdb.c (MDB_page, MDB_node, MDB_meta, MDB_db), little-endian, 64 bits.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from detpipe.storage.lmdb_store import DatabaseError

MAGIC, VERSION = 0xBEEFC0DE, 1
NO_PAGE = (1 << 64) - 1
MAX_DEPTH = 32
"""LMDB's own limit, CURSOR_STACK."""
_BRANCH, _LEAF, _HEAD = 0x01, 0x02, 0x08
_INTEGER_KEYS = 0x08  # flag of the first tree, which lists free pages
_BIG_VALUE = 0x01  # flag of a node whose value is in overflow pages
_META = struct.Struct("<II")  # magic, version
_TREE = struct.Struct("<IHHQQQQQ")  # page size (of the first tree), flags, depth, three counts of pages, entries, root
_ENDS = struct.Struct("<QQ")  # last page, transaction
_PAGE = struct.Struct("<Q2xHHH")  # number, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # size: low and high half, flags, bytes of the key
_NUMBER = struct.Struct("<Q")
_HEAD_END = 152


@dataclass(frozen=True)
class _Meta:
    """One of the two meta pages; the one with the later transaction is valid.

    page: bytes per page. flags (0 for a plain tree), depth, entries, root: those of the main tree.
    """

    page: int
    flags: int
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int


def check_pages(folder: Path) -> int:
    """Verify `folder`/data.mdb and return its number of records (0 for an empty database).

    Afterwards it is certain that all keys and values lie within the file, that each page is used once, and that the
    number of records is correct. Uses one byte of memory per page. Raises DatabaseError, which names the page, for a
    damaged tree.
    """
    path = folder / "data.mdb"
    size = path.stat().st_size
    if size < _HEAD_END:
        raise DatabaseError(f"{path}: expected an LMDB, got {size} bytes; copy or make it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Walk(data, path).run()


class _Walk:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data, self._path = data, path
        self._meta = self._newest_meta()
        # A file may be longer than its meta page says; LMDB refuses pages after the last one.
        self._seen = bytearray(min(len(data) // self._meta.page, self._meta.last_page + 1))

    def run(self) -> int:
        meta = self._meta
        expected = (meta.last_page + 1) * meta.page
        if len(self._data) < expected:
            raise DatabaseError(
                f"{self._path}: expected {expected} bytes, got a truncated file of {len(self._data)}; copy or make it "
                "again"
            )
        if meta.flags:
            raise self._fault("expected one value per key, got an LMDB of another kind")
        if meta.root == NO_PAGE:
            if meta.entries:
                raise self._fault(f"expected {meta.entries} records, got no pages")
            return 0
        if not 0 < meta.depth <= MAX_DEPTH:
            raise self._fault(f"expected a tree of depth 1 to {MAX_DEPTH}, got {meta.depth}")
        entries, left = 0, [(meta.root, 1)]
        while left:
            number, level = left.pop()
            nodes = self._nodes(number, leaf=level == meta.depth)
            if level == meta.depth:
                entries += len(nodes)
                self._check_values(number, nodes)
            else:
                left += [(self._child(node), level + 1) for node in nodes]
        if entries != meta.entries:
            raise self._fault(f"expected {meta.entries} records, got {entries} in its pages")
        return entries

    def _newest_meta(self) -> _Meta:
        first = self._read_meta(0)
        # The second meta page follows the first; the first one states the page size.
        second = self._read_meta(first.page)
        if second.page != first.page:
            raise self._fault("expected one page size, got two in its meta pages")
        return second if second.transaction > first.transaction else first

    def _read_meta(self, at: int) -> _Meta:
        if at + _HEAD_END > len(self._data):
            raise self._fault("expected two meta pages, got a truncated file")
        is_head = _PAGE.unpack_from(self._data, at)[1] & _HEAD
        magic, version = _META.unpack_from(self._data, at + 16)
        page, kind = _TREE.unpack_from(self._data, at + 40)[:2]
        pad, flags, depth, _, _, _, entries, root = _TREE.unpack_from(self._data, at + 88)
        # LMDB's page sizes are powers of two up to 32 KB; operating systems use 4 to 16 KB.
        sizes = [1 << bits for bits in range(9, 16)]
        if not is_head or magic != MAGIC or version != VERSION or page not in sizes or kind != _INTEGER_KEYS:
            raise self._fault(f"expected an LMDB meta page at byte {at}, got other bytes")
        return _Meta(page, pad | flags, depth, entries, root, *_ENDS.unpack_from(self._data, at + 136))

    def _nodes(self, number: int, *, leaf: bool) -> list[int]:
        """The offsets in the file of the nodes of a tree page. The header of each lies within the page."""
        self._visit(number, 1)
        size, begin = self._meta.page, number * self._meta.page
        own, flags, lower, upper = _PAGE.unpack_from(self._data, begin)
        if own != number or flags & 0xFF != (_LEAF if leaf else _BRANCH):
            raise self._fault(f"page {number}: expected a page of the tree, got another kind")
        if not 16 < lower <= upper <= size or lower % 2:
            raise self._fault(f"page {number}: expected a list of records, got invalid bounds")
        offsets = struct.unpack_from(f"<{(lower - 16) // 2}H", self._data, begin + 16)
        if any(not upper <= offset <= size - _NODE.size or offset % 2 for offset in offsets):
            raise self._fault(f"page {number}: expected records inside the page, got one outside")
        return [begin + offset for offset in offsets]

    def _check_values(self, number: int, nodes: list[int]) -> None:
        """Check that the keys and values of a leaf lie in its page, or in overflow pages that are used once."""
        size = self._meta.page
        end = (number + 1) * size
        for node in nodes:
            low, high, flags, key = _NODE.unpack_from(self._data, node)
            value, value_at = low | high << 16, node + _NODE.size + key
            if flags & ~_BIG_VALUE:
                raise self._fault(f"page {number}: expected one value per record, got several")
            if value_at + (_NUMBER.size if flags else value) > end:
                raise self._fault(f"page {number}: expected records inside the page, got one that extends beyond it")
            if flags:
                self._visit(_NUMBER.unpack_from(self._data, value_at)[0], -(-(16 + value) // size))

    def _child(self, node: int) -> int:
        low, high, upper, _ = _NODE.unpack_from(self._data, node)
        return int(low | high << 16 | upper << 32)

    def _visit(self, number: int, count: int) -> None:
        """Check that these pages are in the file, after the two meta pages, and were not visited before."""
        if not 2 <= number <= len(self._seen) - count:
            raise self._fault(f"expected pages 2 to {len(self._seen) - 1}, got {number} to {number + count - 1}")
        if self._seen.find(1, number, number + count) >= 0:
            raise self._fault(f"page {number} is used twice")
        self._seen[number : number + count] = b"\x01" * count

    def _fault(self, what: str) -> DatabaseError:
        return DatabaseError(f"{self._path}: damaged: {what}; copy or make it again")
