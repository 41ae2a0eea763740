"""The folder of each `source` of `detpipe detect`, so that no source replaces the results of another.

The outputs of a source are in sources/NAME of the run folder, where NAME is the name of the folder or image.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from detpipe.runs.run_folder import RunFolder
from detpipe.storage.manifest import ArtefactError, find_manifest
from detpipe.storage.object_storage import address, is_remote
from detpipe.storage.shards import shards_folder
from detpipe.storage.stored_file import is_file, is_folder

MAX_NAME = 200
"""Limit on the bytes of a folder's name; file systems allow 255."""


def resolved_source(source: str) -> str:
    """The path that identifies a source, however it was typed."""
    return address(Path(source)) if is_remote(source) else str(Path(source).resolve())


def source_root(source: str) -> Path:
    """Return the folder or tar file that file names in the results of a source are relative to."""
    return Path(source) if is_folder(Path(source)) else Path(source).parent


def source_folder(run: RunFolder, source: str) -> RunFolder:
    """The folder of a source: the one that has its results, else a new one.

    It is sources/NAME, or sources/NAME_2 and so on if NAME is of another source with the same name.
    """
    resolved = Path(resolved_source(source))
    name = (resolved.stem if is_file(resolved) else resolved.name) or "root"
    while len(os.fsencode(name)) > MAX_NAME:
        name = name[:-1]
    for number in count(1):
        folder = RunFolder(run.path / "sources" / (name if number == 1 else f"{name}_{number}"))
        if _is_of(folder, resolved_source(source)):
            return folder
    raise AssertionError("count ends")


def _is_of(folder: RunFolder, resolved: str) -> bool:
    """Whether the folder is of this source, or of none yet."""
    for output in (folder.detections, folder.photo_classes):
        try:
            manifest = find_manifest(output)
        except ArtefactError:  # damaged: the command that reads it next says so, and overwrite=true replaces it
            return True
        if manifest is not None:
            return manifest.settings.get("source") == resolved
    if not folder.path.is_dir():
        return not folder.path.exists()
    shards = shards_folder(folder.detections)
    for manifest_file in sorted(shards.glob("*/manifest.json")):
        try:
            manifest = find_manifest(manifest_file.parent)
        except ArtefactError:
            return True
        if manifest is not None:
            return manifest.settings.get("source") == resolved
    # Other tasks of this source may be about to make the first shards.
    return all(path == shards for path in folder.path.iterdir())
