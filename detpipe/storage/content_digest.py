"""A digest of all records of a database, independent of the layout of its file."""

from __future__ import annotations

import hashlib


class ContentDigest:
    """BLAKE2b-128 of keys and records in the order of `add`, each preceded by its length."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, key: bytes, record: bytes | memoryview) -> None:
        """Add one record."""
        self._hash.update(len(key).to_bytes(8, "little") + key + len(record).to_bytes(8, "little"))
        self._hash.update(record)

    def hexdigest(self) -> str:
        """The digest of the records so far, 32 hexadecimal digits."""
        return self._hash.hexdigest()
