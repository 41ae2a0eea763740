"""Reader of JSON files that somebody else made. Strings may be UTF-8, with or without a byte-order mark, or UTF-16."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detpipe.storage.input_file import InputFileError
from detpipe.storage.stored_file import open_stored, stored_size

MAX_DEPTH = 100
"""Lists and objects inside each other. COCO's own files have 5."""
_START = 1 << 16
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file, which may be a member of a tar.

    expected: what the file should be, for the error: "a COCO JSON file". Python's parser also accepts NaN and
    infinity, so check numbers.
    Raises InputFileError, which names the file, for other content and for a file that does not fit in memory;
    FileNotFoundError, and other OSErrors of the file system.
    """
    with open_stored(path, expected) as file:
        start = file.read(_START)
        # Found in the first bytes, so that a large file of brackets is not read.
        if _depth(start) > MAX_DEPTH:
            raise InputFileError(f"{path}: expected {expected}, got lists more than {MAX_DEPTH} deep; check the file")
        try:
            return json.loads(start + file.read())
        except RecursionError as error:
            raise InputFileError(f"{path}: expected {expected}, got lists that are too deep; check the file") from error
        except MemoryError as error:
            raise InputFileError(
                f"{path}: expected {expected} that fits in memory, got {stored_size(path):,} bytes; split the file"
            ) from error
        except ValueError as error:
            raise InputFileError(
                f"{path}: expected {expected}, got an error on reading it as JSON: {error}; make the file again"
            ) from error


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[int, Any]]:
    """The number of each line that is not empty, from 1, and its content. An empty file gives an InputFileError.

    The file is read line by line. expected and errors: as for `read_json`; a fault names its line.
    """
    with open_stored(path, expected) as file:
        for number, line in enumerate(file, start=1):
            text = line.strip().removeprefix(b"\xef\xbb\xbf")
            if not text:
                continue
            if _depth(text) > MAX_DEPTH:
                raise InputFileError(f"{path}:{number}: expected {expected}, got lists more than {MAX_DEPTH} deep")
            try:
                yield number, json.loads(text)
            except ValueError as error:
                raise InputFileError(
                    f"{path}:{number}: expected {expected}, got an error on reading the line as JSON: {error}; make "
                    "the file again"
                ) from error


def _depth(start: bytes) -> int:
    """The greatest number of brackets that are open at one place of the text. Brackets in strings do not count."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[{\]}]", _STRING.sub(b"", start)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
