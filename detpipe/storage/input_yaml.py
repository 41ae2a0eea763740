"""Reader of YAML files that somebody else made. Nothing is executed, and their size and depth are limited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from detpipe.storage.input_file import open_input

LARGEST_FILE = 1_000_000
"""Limit on the bytes of a file."""
MOST_VALUES = 100_000
"""Limit on the values of a file, each alias counted as what it stands for."""
DEEPEST = 50
"""Limit on the depth of values in values."""


def read_yaml(path: Path, expected: str, content: str = "text") -> Any:
    """The content of a YAML file, by PyYAML's safe loader.

    expected: what the file should be, for errors of the file: "a YAML file of settings". content: what it holds.
    Raises InputFileError as `open_input`, and ValueError, which names the file, for other text and above the limits.
    """
    with open_input(path, expected) as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{path}: expected {content}, at most {LARGEST_FILE} bytes, got a larger file")
    try:
        value = yaml.safe_load(data.decode("utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ValueError(f"{path}: expected YAML, got a mistake{line}: {error.problem}; correct it") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, a number of 5,000 digits
        raise ValueError(
            f"{path}: expected YAML, got text that cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error
    _count(value, path, {}, 0)
    return value


def _count(value: Any, path: Path, counts: dict[int, int], depth: int) -> int:
    """The number of values in a value. counts: by id, of lists and mappings that are counted."""
    if not isinstance(value, dict | list):
        return 1
    if depth > DEEPEST:
        raise ValueError(f"{path}: expected at most {DEEPEST} levels of values, got more, or a value that holds itself")
    if id(value) not in counts:
        inside = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count(one, path, counts, depth + 1) for one in inside)
        if counts[id(value)] > MOST_VALUES:
            raise ValueError(
                f"{path}: expected at most {MOST_VALUES} values, got more: aliases stand for other aliases"
            )
    return counts[id(value)]
