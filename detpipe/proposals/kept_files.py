"""Copies of a proposer's files in the folder of a classifier, so that the folder works wherever it is moved."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from detpipe.storage.atomic import replaced

KEPT = "proposer"
"""Name of the folder of copies inside a detector's folder."""


def keep_files(folder: Path, root: Path, files: Iterable[Path], part: str = "") -> None:
    """Copy files below `root` into folder/proposer/part, under their paths from root. Each copy is atomic."""
    for path in files:
        with replaced(folder / KEPT / part / path.relative_to(root)) as scratch:
            shutil.copyfile(path, scratch)


def kept_file(folder: Path, path: str, part: str = "") -> str:
    """The path of a file's copy in a folder, by its name; the path itself if there is no copy."""
    copy = folder / KEPT / part / Path(path).name
    return str(copy) if path and copy.is_file() else path
