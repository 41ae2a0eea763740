"""Presets and experiments of other people: YAML files in a folder that `--config-dir` names.

They are checked before Hydra reads them. Hydra would expand nested aliases without limit, and run what a `hydra`
section names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detpipe.storage.input_yaml import read_yaml


def check_preset(path: Path) -> None:
    """Raise InputFileError or ValueError for a file that holds no settings, or more than Hydra can read."""
    content = read_yaml(path, "a YAML file of settings", "settings")
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{path}: expected settings as `name: value`, got {kind}")
    if "hydra" in content:
        raise ValueError(
            f"{path}: expected settings of detpipe, got a section `hydra`, which may run any code; remove it"
        )
    _check_names(content, path, set())


def _check_names(value: Any, path: Path, seen: set[int]) -> None:
    """Raise ValueError for a name that is not a text. seen: ids of lists and mappings that are checked."""
    if not isinstance(value, dict | list) or id(value) in seen:
        return
    seen.add(id(value))
    wrong = [key for key in value if not isinstance(key, str)] if isinstance(value, dict) else []
    if wrong:
        raise ValueError(f"{path}: expected names of settings, got {repr(wrong[0])[:60]}")
    for one in value.values() if isinstance(value, dict) else value:
        _check_names(one, path, seen)
