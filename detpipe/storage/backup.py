"""Replacing a complete artefact: the earlier one is kept as a backup until the new one is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detpipe.storage.manifest import Artefact, ArtefactError, find_manifest


def backup_path(path: Path) -> Path:
    """Where an earlier store or classifier waits until the one that replaces it stands."""
    return path.with_name(f"{path.name}.before")


def keep_backup(artefact: Artefact) -> None:
    """Keep a complete store for the one that replaces it; an unfinished one goes, and one whose manifest is broken."""
    try:
        found = find_manifest(artefact.path)
    except ArtefactError:  # which says to make it again, as is done here
        return
    if found is not None and found.complete:
        shutil.rmtree(backup_path(artefact.path), ignore_errors=True)
        artefact.path.rename(backup_path(artefact.path))


@contextmanager
def successor(artefact: Artefact) -> Iterator[None]:
    """Make room for an artefact that is finished in the block. The earlier one comes back where that fails."""
    keep_backup(artefact)
    try:
        artefact.begin(overwrite=True)
        yield
    except BaseException:
        if backup_path(artefact.path).is_dir():
            shutil.rmtree(artefact.path, ignore_errors=True)
            backup_path(artefact.path).rename(artefact.path)
        raise
    shutil.rmtree(backup_path(artefact.path), ignore_errors=True)
