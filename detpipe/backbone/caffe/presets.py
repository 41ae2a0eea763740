"""Nets included in detpipe as prototxt files, written from their papers.

Layers have the names of the published weights, so these .caffemodel files can be loaded.
"""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDER = Path(__file__).parent / "presets"

PRESETS = ("alexnet", "caffenet", "googlenet", "lenet", "vgg16")


def preset(name: str) -> Path:
    """The prototxt of a preset. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)}, got {name!r}")
    return FOLDER / f"{name}.prototxt"


def find_prototxt(name_or_path: str | Path) -> Path:
    """The prototxt of a preset's name or a path. Raises FileNotFoundError if it is neither."""
    if str(name_or_path) in PRESETS:
        return preset(str(name_or_path))
    path = Path(name_or_path)
    if not path.exists():
        near = difflib.get_close_matches(str(name_or_path).lower(), PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(f"no such prototxt: {path}; expected a file, or one of {', '.join(PRESETS)}{hint}")
    return path
