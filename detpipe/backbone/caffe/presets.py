"""Nets that come with detpipe, as prototxt written from their papers.

Layers bear the names under which their weights were published, so that those .caffemodel files fit.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "presets"

PRESETS = ("alexnet", "caffenet", "googlenet", "lenet", "vgg16")


def preset(name: str) -> Path:
    """The prototxt of that name. Raises ValueError for another."""
    if name not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)}, got {name!r}")
    return FOLDER / f"{name}.prototxt"


def find_prototxt(name_or_path: str | Path) -> Path:
    """A preset by its name, or the path of a file. Raises FileNotFoundError where it is neither."""
    if str(name_or_path) in PRESETS:
        return preset(str(name_or_path))
    path = Path(name_or_path)
    if not path.is_file():
        raise FileNotFoundError(f"no such prototxt: {path}; expected a file, or one of {', '.join(PRESETS)}")
    return path
