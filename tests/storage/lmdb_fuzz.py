"""Damages LMDB files at random and reads and writes them: run in a process of its own, which LMDB could end.

    python -m tests.storage.lmdb_fuzz FOLDER SEED COUNT

Prints the seed before each case, and the numbers of outcomes at the end. A wrong outcome raises AssertionError.
"""

from __future__ import annotations

import random
import signal
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

from detpipe.storage.lmdb_store import DatabaseError, LmdbReader, LmdbWriter

PAGE = 4096
SECONDS = 20
"""Limit on the time of one case."""
SHAPES = {
    "one record": (1, 1, 10, 5),
    "one leaf": (20, 1, 60, 5),
    "two levels": (150, 2, 120, 5),
    "long values": (12, 2, 9000, 5),
    "three levels": (160, 1, 60, 480),
}
"""Number of records, how often each is written, bytes of values and bytes of keys."""


def value_of(key: bytes, body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(key + body))


def is_right(key: bytes, value: bytes) -> bool:
    return len(value) >= 4 and value == value_of(key, value[:-4])


def make(folder: Path, shape: str) -> set[bytes]:
    """Write a database; returns its keys."""
    count, rounds, size, key_size = SHAPES[shape]
    numbers = random.Random(shape)
    keys = [f"{number:0{key_size}d}".encode() for number in range(count)]
    for _ in range(rounds):
        with LmdbWriter(folder, transaction=40) as writer:
            for key in numbers.sample(keys, count):
                writer.put(key, value_of(key, numbers.randbytes(size + numbers.randrange(size))))
    return set(keys)


def damage(data: bytearray, numbers: random.Random) -> None:
    """Change one to three places: in meta pages, heads of pages, offsets, heads of nodes, page numbers, anywhere."""
    pages = len(data) // PAGE
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        page = numbers.randrange(pages)
        kind = numbers.randrange(5)
        if kind == 0:
            at = numbers.randrange(2) * PAGE + numbers.randrange(152)
        elif kind == 1:
            at = page * PAGE + numbers.randrange(16)
        elif kind == 2:
            at = page * PAGE + 16 + numbers.randrange(64)
        elif kind == 3:
            lower = struct.unpack_from("<H", data, page * PAGE + 12)[0]
            slot = page * PAGE + 16 + 2 * numbers.randrange(max((lower - 16) // 2, 1) % 2000)
            node = struct.unpack_from("<H", data, min(slot, len(data) - 2))[0]
            at = page * PAGE + node % PAGE + numbers.randrange(24)
        else:
            at = numbers.randrange(len(data))
        how = numbers.randrange(5)
        at = min(at, len(data) - 8)
        if how == 0:
            data[at] ^= 1 << numbers.randrange(8)
        elif how == 1:
            data[at] = numbers.randrange(256)
        elif how == 2:
            struct.pack_into("<H", data, at, numbers.choice((0, 1, 15, 16, 17, 4095, 4096, 0x7FFF, 0xFFFF)))
        elif how == 3:
            struct.pack_into(
                "<Q", data, at, numbers.choice((0, 1, 2, pages - 1, pages, 1 << 31, 1 << 62, (1 << 64) - 1))
            )
        else:
            other = numbers.randrange(pages) * PAGE
            length = numbers.choice((16, 16, 152, PAGE))
            here = at // PAGE * PAGE
            data[here : here + length] = data[other : other + length]
    if not numbers.randrange(20):
        del data[numbers.randrange(len(data)) :]


def outcome_of(folder: Path, keys: set[bytes], *, write: bool) -> str:
    """Read all records by both ways, and perhaps write. Raises AssertionError for a silent fault."""
    try:
        if write:
            with LmdbWriter(folder) as writer:
                for number in range(30):
                    key = b"new%d" % number
                    writer.put(key, value_of(key, bytes(10 + 500 * number)))
                for key in sorted(keys)[::3]:
                    writer.put(key, value_of(key, bytes(100)))
        with LmdbReader(folder) as reader:
            records = list(reader.items())
            assert len(records) == len(reader)
            assert sorted(reader.keys()) == [key for key, _ in records]
            for key, value in records:
                assert key in reader
                assert reader.get(key) == value
    except (DatabaseError, OSError) as error:
        is_sentence = str(folder) in str(error) and "\n" not in str(error)
        return "refused" if is_sentence else f"unclear: {error}"
    wrong = sum(not is_right(key, value) for key, value in records)
    return "wrong checksum" if wrong else "right" if keys <= {key for key, _ in records} else "earlier state"


def main(folder: Path, seed: int, count: int) -> None:
    bases = {}
    for shape in SHAPES:
        keys = make(folder / shape, shape)
        bases[shape] = ((folder / shape / "data.mdb").read_bytes(), keys)
    outcomes: Counter[str] = Counter()
    target = folder / "damaged"
    target.mkdir(exist_ok=True)
    for case in range(seed, seed + count):
        sys.stdout.write(f"case {case}\n")
        sys.stdout.flush()
        numbers = random.Random(case)
        whole, keys = bases[numbers.choice(sorted(bases))]
        data = bytearray(whole)
        damage(data, numbers)
        (target / "data.mdb").unlink(missing_ok=True)
        (target / "lock.mdb").unlink(missing_ok=True)
        (target / "data.mdb").write_bytes(data)
        signal.alarm(SECONDS)
        outcomes[outcome_of(target, keys, write=bool(numbers.randrange(2)))] += 1
        signal.alarm(0)
    sys.stdout.write(f"{dict(sorted(outcomes.items()))}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
