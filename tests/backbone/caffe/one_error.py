"""What a reader may do with bytes that are none of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most_one_error(beginning: str) -> Iterator[None]:
    """Nothing, or a ValueError that begins so."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(beginning):
            raise
