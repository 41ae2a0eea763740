"""Links inside a run folder: they must not lead a command to write elsewhere.

A run folder may come from somebody else, with a link such as `classifier -> /home/me/important`. The run folder itself
may be a link: the user has named it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from detpipe.storage.manifest import ArtefactError, find_manifest


class LinkError(ValueError):
    """A link inside a run folder leads out of it."""


def refuse_links(folder: Path) -> None:
    """Raise LinkError for a link in a run folder, or in its subfolders, that could lead a command to write elsewhere.

    Allowed are links to places inside the folder, and links to complete artefacts, such as the proposals of another
    run: they are only read, and where an artefact is made again, the link is replaced and its target stays.
    A missing folder has no links.
    """
    root = folder.resolve()
    for link in _links(folder):
        if not link.resolve().is_relative_to(root) and not _is_complete_artefact(link):
            raise refused(link)


def refuse_link(path: Path) -> None:
    """Raise LinkError if a path that is written to is a link."""
    if path.is_symlink():
        raise refused(path)


def refused(link: Path) -> LinkError:
    """The error for a link."""
    return LinkError(
        f"{link}: expected a file or folder of the run itself, got a link to {link.readlink()}; replace the link by a "
        "copy of what it leads to, or remove it"
    )


def _links(folder: Path) -> Iterator[Path]:
    """All links in a folder and its subfolders. No link is followed, except the folder itself."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_symlink():
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            yield from _links(Path(entry.path))


def _is_complete_artefact(link: Path) -> bool:
    try:
        found = find_manifest(link) if link.is_dir() else None
    except ArtefactError:
        return False
    return found is not None and found.complete
