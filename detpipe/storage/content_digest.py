"""A digest of all records of a database, whatever stands around them in its file."""

from __future__ import annotations

import hashlib


class ContentDigest:
    """BLAKE2b-128 over keys and records in the order they are added, each with its length before it."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, key: bytes, record: bytes | memoryview) -> None:
        """Take one record."""
        self._hash.update(len(key).to_bytes(8, "little") + key + len(record).to_bytes(8, "little"))
        self._hash.update(record)

    def hexdigest(self) -> str:
        """The digest so far, 32 letters."""
        return self._hash.hexdigest()
