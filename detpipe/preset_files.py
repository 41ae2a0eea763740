"""Presets and experiments of other people: YAML files in a folder that `--config-dir` names.

They are checked before Hydra reads them. Hydra would expand nested aliases without limit, and run what a `hydra`
section names.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from detpipe.storage.input_file import open_input

LARGEST_FILE = 1_000_000
"""Limit on the bytes of a preset."""
MOST_VALUES = 100_000
"""Limit on the values of a preset, each alias counted as what it stands for."""
DEEPEST = 50
"""Limit on the depth of values in values."""


def check_preset(path: Path) -> None:
    """Raise InputFileError or ValueError for a file that holds no settings, or more than Hydra can read."""
    with open_input(path, "a YAML file of settings") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{path}: expected settings, at most {LARGEST_FILE} bytes, got a larger file")
    try:
        content = yaml.safe_load(data.decode("utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ValueError(f"{path}: expected YAML, got a mistake{line}: {error.problem}; correct it") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, a number of 5,000 digits
        raise ValueError(f"{path}: expected YAML, got text that cannot be read: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{path}: expected settings as `name: value`, got {kind}")
    if "hydra" in content:
        raise ValueError(
            f"{path}: expected settings of detpipe, got a section `hydra`, which may run any code; remove it"
        )
    _count(content, path, {}, 0)


def _count(value: Any, path: Path, counts: dict[int, int], depth: int) -> int:
    """The number of values in a value. counts: by id, of lists and mappings that are counted."""
    if not isinstance(value, dict | list):
        return 1
    if depth > DEEPEST:
        raise ValueError(f"{path}: expected at most {DEEPEST} levels of values, got more, or a value that holds itself")
    if id(value) not in counts:
        wrong = [key for key in value if not isinstance(key, str)] if isinstance(value, dict) else []
        if wrong:
            raise ValueError(f"{path}: expected names of settings, got {_shown(wrong[0])}")
        inside = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count(one, path, counts, depth + 1) for one in inside)
        if counts[id(value)] > MOST_VALUES:
            raise ValueError(
                f"{path}: expected at most {MOST_VALUES} values, got more: aliases stand for other aliases"
            )
    return counts[id(value)]


def _shown(key: Hashable) -> str:
    return repr(key)[:60]
