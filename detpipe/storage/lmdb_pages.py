"""The pages of an LMDB file, verified before the library follows them.

LMDB maps its file and believes it: a damaged or hostile page can send it behind the end of the map, which kills the
process (SIGBUS, SIGSEGV), or let it meet the same pages without end. Here the tree is walked by the file's own bytes;
values are not read, but for what stands in the tree's pages.

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
"""LMDB's own bound, CURSOR_STACK."""
_BRANCH, _LEAF, _HEAD = 0x01, 0x02, 0x08
_INTEGER_KEYS = 0x08  # of the first tree, which lists free pages
_BIG_VALUE = 0x01  # of a node: its value stands in pages of its own
_META = struct.Struct("<II")  # magic, version
_TREE = struct.Struct("<IHHQQQQQ")  # page size (of the first tree), flags, depth, three counts of pages, entries, root
_ENDS = struct.Struct("<QQ")  # last page, transaction
_PAGE = struct.Struct("<Q2xHHH")  # number, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # size: low and high half, flags, bytes of the key
_NUMBER = struct.Struct("<Q")
_HEAD_END = 152


@dataclass(frozen=True)
class _Meta:
    """One of the two heads; that of the later transaction counts.

    page: bytes of one. flags (0 of a plain tree), depth, entries, root: of the main tree.
    """

    page: int
    flags: int
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int


def check_pages(folder: Path) -> int:
    """The number of records in `folder`/data.mdb. Raises DatabaseError, naming the page, where its tree is damaged.

    Else all keys and values lie within the file, each page is reached once, and all records are those that the file
    claims. An empty database is sound. Memory: a byte a page.
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
        # A file may be longer than its head says; LMDB refuses the pages behind the last one.
        self._seen = bytearray(min(len(data) // self._meta.page, self._meta.last_page + 1))

    def run(self) -> int:
        meta = self._meta
        wanted = (meta.last_page + 1) * meta.page
        if len(self._data) < wanted:
            raise DatabaseError(
                f"{self._path}: expected {wanted} bytes, got {len(self._data)}: cut short; copy or make it again"
            )
        if meta.flags:
            raise self._fault("expected one value a key, got another kind of LMDB")
        if meta.root == NO_PAGE:
            if meta.entries:
                raise self._fault(f"claims {meta.entries} records, has no pages of them")
            return 0
        if not 0 < meta.depth <= MAX_DEPTH:
            raise self._fault(f"claims a tree {meta.depth} pages deep")
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
            raise self._fault(f"claims {meta.entries} records, its pages have {entries}")
        return entries

    def _newest_meta(self) -> _Meta:
        first = self._read_meta(0)
        # The second one stands a page later, and a page is as large as the first one says.
        second = self._read_meta(first.page)
        if second.page != first.page:
            raise self._fault("its two heads have pages of different sizes")
        return second if second.transaction > first.transaction else first

    def _read_meta(self, at: int) -> _Meta:
        if at + _HEAD_END > len(self._data):
            raise self._fault("its head is cut off")
        is_head = _PAGE.unpack_from(self._data, at)[1] & _HEAD
        magic, version = _META.unpack_from(self._data, at + 16)
        page, kind = _TREE.unpack_from(self._data, at + 40)[:2]
        pad, flags, depth, _, _, _, entries, root = _TREE.unpack_from(self._data, at + 88)
        # The sizes that LMDB makes files with: powers of two, at most 32 KB; operating systems have 4 to 16.
        sizes = [1 << bits for bits in range(9, 16)]
        if not is_head or magic != MAGIC or version != VERSION or page not in sizes or kind != _INTEGER_KEYS:
            raise self._fault(f"the head at byte {at} is none of LMDB")
        return _Meta(page, pad | flags, depth, entries, root, *_ENDS.unpack_from(self._data, at + 136))

    def _nodes(self, number: int, *, leaf: bool) -> list[int]:
        """Where the nodes of a page of the tree begin in the file, each with its head within the page."""
        self._visit(number, 1)
        size, begin = self._meta.page, number * self._meta.page
        own, flags, lower, upper = _PAGE.unpack_from(self._data, begin)
        if own != number or flags & 0xFF != (_LEAF if leaf else _BRANCH):
            raise self._fault(f"page {number} is not of the tree")
        if not 16 < lower <= upper <= size or lower % 2:
            raise self._fault(f"page {number} has no sound list of records")
        places = struct.unpack_from(f"<{(lower - 16) // 2}H", self._data, begin + 16)
        if any(not upper <= place <= size - _NODE.size or place % 2 for place in places):
            raise self._fault(f"page {number} has a record outside of it")
        return [begin + place for place in places]

    def _check_values(self, number: int, nodes: list[int]) -> None:
        """The keys and values of a leaf lie in the page, or in pages of their own that nobody else has."""
        size = self._meta.page
        end = (number + 1) * size
        for node in nodes:
            low, high, flags, key = _NODE.unpack_from(self._data, node)
            value, value_at = low | high << 16, node + _NODE.size + key
            if flags & ~_BIG_VALUE:
                raise self._fault(f"page {number} has a record of several values")
            if value_at + (_NUMBER.size if flags else value) > end:
                raise self._fault(f"page {number} has a record that goes beyond it")
            if flags:
                self._visit(_NUMBER.unpack_from(self._data, value_at)[0], -(-(16 + value) // size))

    def _child(self, node: int) -> int:
        low, high, upper, _ = _NODE.unpack_from(self._data, node)
        return int(low | high << 16 | upper << 32)

    def _visit(self, number: int, count: int) -> None:
        """Hold that these pages are in the file, behind the two heads, and were not met before."""
        if not 2 <= number <= len(self._seen) - count:
            raise self._fault(f"pages {number} to {number + count - 1} are named, the file has {len(self._seen)}")
        if self._seen.find(1, number, number + count) >= 0:
            raise self._fault(f"page {number} is used twice")
        self._seen[number : number + count] = b"\x01" * count

    def _fault(self, what: str) -> DatabaseError:
        return DatabaseError(f"{self._path}: damaged: {what}; copy or make it again")
