"""Hostile proposal files, drawn. Many of them made an earlier reader hang, crash or fill the memory."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable

import numpy as np

# Pickles, opcode by opcode: see pickletools.

DOUBLED = b")" + b"2\x86" * 60
"""() in a pair with itself, sixty times: 1 kB that hash, repr and numpy walk 2^60 times."""


def detectron(**entries: bytes) -> bytes:
    """A pickled dict of entries that are pickled already."""
    items = b"".join(b"U" + bytes([len(name)]) + name.encode() + value for name, value in entries.items())
    return b"\x80\x02}(" + items + b"u."


PICKLES: dict[str, Callable[[], bytes]] = {
    "memo index of 2^30": lambda: b"\x80\x02]r\x00\x00\x00\x40.",
    "hash of a doubled tuple": lambda: b"\x80\x02}" + DOUBLED + b"K\x01s.",
    "set of a doubled tuple": lambda: b"\x80\x04\x8f(" + DOUBLED + b"\x90.",
    "numpy of a doubled tuple": lambda: b"\x80\x02]" + DOUBLED + b"a.",
    "text of a doubled tuple": lambda: detectron(ids=b"]" + DOUBLED + b"a", boxes=b"]]a", objectness_logits=b"]]a"),
    "repr of a doubled tuple": lambda: detectron(ids=b"]", boxes=b"]", objectness_logits=b"]", bbox_mode=DOUBLED),
    "repr of a doubled state": lambda: b"\x80\x02ccollections\nOrderedDict\n)Rcnumpy\nndarray\n)R" + DOUBLED + b"b.",
    "a dict in itself": lambda: b"\x80\x02}q\x00U\x01ah\x00s.",
    "a list in itself": lambda: b"\x80\x02]q\x00h\x00a.",
    "lists 4,000 deep": lambda: b"\x80\x02" + b"]" * 4_000 + b"a" * 3_999 + b".",
    "a claim of 2^62 bytes": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
    "a claim of 4 GB": lambda: b"\x80\x03B" + struct.pack("<I", 0xFFFFFFFF) + b".",
    "a frame of 2^60": lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"].",
    "an array of 2^40": lambda: pickle.dumps(np.zeros(1), 2).replace(
        b"K\x01\x85", b"\x8a\x06" + b"\xff" * 5 + b"\x00\x85"
    ),
}


# MATLAB 5: elements of a type, a length and data, padded to 8 bytes.

CELL, STRUCT, DOUBLE = 1, 2, 6


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind: int, dims: tuple[int, ...], *parts: bytes, name: bytes = b"") -> bytes:
    flags, shape = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack(f"<{len(dims)}i", *dims))
    return element(14, flags + shape + element(1, name) + b"".join(parts))


def mat(variable: bytes, *, compressed: bool = False) -> bytes:
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    if not compressed:
        return start + variable
    squeezed = zlib.compress(variable, 9)
    return start + struct.pack("<II", 15, len(squeezed)) + squeezed


def nested_cells(levels: int) -> bytes:
    cell = matrix(DOUBLE, (0, 0), element(9, b""))
    for level in range(levels):
        cell = matrix(CELL, (1, 1), cell, name=b"boxes" if level == levels - 1 else b"")
    return cell


def fields(length: int, names: bytes) -> bytes:
    return matrix(STRUCT, (1, 1), element(5, struct.pack("<i", length)), element(1, names), name=b"boxes")


def zeros(megabytes: int) -> bytes:
    numbers = megabytes << 17
    return matrix(DOUBLE, (numbers // 4, 4), element(9, bytes(numbers * 8)), name=b"boxes")


MATS: dict[str, Callable[[], bytes]] = {
    "a cell of 10^9": lambda: mat(matrix(CELL, (1, 10**9), name=b"boxes")),
    "a cell of 2^31 - 1 by 2^31 - 1": lambda: mat(matrix(CELL, (2**31 - 1, 2**31 - 1), name=b"boxes")),
    "an array of 10^9": lambda: mat(matrix(DOUBLE, (10**9, 4), element(9, b"\x00" * 64), name=b"boxes")),
    "data of 4 GB": lambda: mat(matrix(DOUBLE, (2, 4), struct.pack("<II", 9, 0xFFFFFFF0), name=b"boxes")),
    "cells 4,800 deep": lambda: mat(nested_cells(4_800), compressed=True),
    "cells 20,000 deep": lambda: mat(nested_cells(20_000), compressed=True),
    "field names of length 0": lambda: mat(fields(0, b"abcd")),
    "field names of length -1": lambda: mat(fields(-1, b"abcd")),
    "field names of length 2^31 - 1": lambda: mat(fields(2**31 - 1, b"abcd")),
    "2,000 axes": lambda: mat(matrix(DOUBLE, (1,) * 2_000, element(9, bytes(8)), name=b"boxes")),
    "zeros that are compressed": lambda: mat(zeros(300), compressed=True),
}

JSONS: dict[str, Callable[[], bytes]] = {
    "lists 4,000 deep": lambda: b"[" * 4_000 + b"]" * 4_000,
    "a result 900 deep": lambda: b"[" + b"[" * 900 + b"]" * 900 + b"]",
    "a number of 9,000 digits": lambda: b'[{"image_id": ' + b"9" * 9_000 + b', "bbox": [1, 2, 3, 4], "score": 1}]',
    "a box of 4,000 digits": lambda: b'[{"image_id": 1, "bbox": [1, 2, 3, ' + b"9" * 4_000 + b'], "score": 1}]',
    "an RLE of 10^18 pixels": lambda: (
        b'[{"image_id": 1, "score": 1, "segmentation": {"size": [2000000000, 1], "counts": [0, 1000000000000000000]}}]'
    ),
}
