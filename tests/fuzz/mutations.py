"""Damage to files: truncation, changed bits and bytes, length fields, splices of two files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

LENGTHS = (0, 1, 2, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 10**9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
           1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
TOKENS = (b'"', b"[", b"{", b"}", b"]", b"<", b">", b"&", b"'", b"\\", b"\n", b"\x00", b"\xff", b"NaN", b"-1", b"1e999",
          b"9" * 30, b"null", b"\xed\xa0\x80", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"../", b"2\x86")  # fmt: skip


class Mutation(NamedTuple):
    """One change. place, other: where, as shares of the length in 2^16ths. number: which of the kind."""

    kind: str
    place: int
    other: int
    number: int


KINDS = ("cut", "bit", "byte", "length", "token", "repeat", "remove", "splice", "swap")
SHARES = st.integers(0, (1 << 16) - 1)
MUTATIONS = st.lists(st.builds(Mutation, st.sampled_from(KINDS), SHARES, SHARES, SHARES), min_size=1, max_size=5)


def mutated(data: bytes, mutations: Sequence[Mutation], others: Sequence[bytes]) -> bytes:
    """The data with the changes made one after the other. others: files to splice with."""
    for mutation in mutations:
        data = _changed(data, mutation, others)
    return data


def _changed(data: bytes, mutation: Mutation, others: Sequence[bytes]) -> bytes:
    kind, share, other_share, number = mutation
    at, end = share * len(data) >> 16, other_share * len(data) >> 16
    first, last = min(at, end), max(at, end)
    match kind:
        case "cut":
            return data[:at]
        case "bit" if data:
            return data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :]
        case "byte" if data:
            return data[:at] + bytes([number & 255]) + data[at + 1 :]
        case "length":
            size, order = ((1, 2, 4, 8)[number % 4], "<>"[number // 4 % 2])
            value = LENGTHS[number // 8 % len(LENGTHS)] & (1 << 8 * size) - 1
            packed = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], value)
            return data[:at] + packed + data[at + size :]
        case "token":
            return data[:at] + TOKENS[number % len(TOKENS)] * (1, 1, 1, 60, 5_000)[other_share % 5] + data[at:]
        case "repeat":
            return data[:last] + data[first:last][:1_000] * (1, 2, 50)[number % 3] + data[last:]
        case "remove":
            return data[:first] + data[last:] if last - first < 64 else data[:first] + data[first + 1 + number % 8 :]
        case "splice":
            other = others[number % len(others)]
            return data[:at] + other[other_share * len(other) >> 16 :]
        case "swap":
            return (
                data[:first]
                + data[last : last + 8]
                + data[first + 8 : last]
                + data[first : first + 8]
                + data[last + 8 :]
            )
    return data
