"""Source of images without annotations: a folder, a tar file, or a single image file."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.console import amount
from detpipe.datasets.entry import Entry
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import FolderScan, is_image, scan, scan_images
from detpipe.datasets.image_file import IMAGE_SUFFIXES
from detpipe.datasets.source import DatasetSource, Recognised, Split, passed_over_findings
from detpipe.storage.stored_file import PARQUET, exists, is_existing_folder, is_file, is_folder

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ImageFolderSource(DatasetSource):
    """The images in a folder and its subfolders (without hidden files and folders), or one file, as the test split.

    The images may be in a tar file, or in the tar files of a folder without image files. An image's id is its file name
    without suffix. If two images would share an id, all ids are paths relative to the folder, without suffix if these
    are unique, else with it.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("root",)

    root: str
    """Folder of images or of tar files, a tar file, or one image file."""

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        if is_file(root):
            return Recognised({"root": str(root)}, "one image without boxes") if is_image(root.name) else None
        count = len(scan(root).images)
        return Recognised({"root": str(root)}, f"{amount(count, 'images')} without boxes") if count else None

    def has(self, split: Split) -> bool:
        return split is Split.test

    def title(self, split: Split) -> str:  # noqa: ARG002
        return Path(self.root).name or self.root

    def annotated(self, split: Split) -> bool:  # noqa: ARG002
        return False

    def known_classes(self) -> list[str]:
        return list(self.classes or ())

    def named_folders(self) -> list[Path]:
        root = Path(self.root)
        # A file that the user names may be a link to any place.
        return [root] if is_existing_folder(root) else [root.parent, root.resolve().parent]

    def strays(self) -> list[Finding]:
        return passed_over_findings(self._scan) if is_folder(Path(self.root)) else []

    def entries(self, split: Split) -> list[Entry]:
        root = Path(self.root)
        if not is_folder(root):
            if not exists(root):
                raise FileNotFoundError(f"{root}: expected an image or a folder of images, got no such file or folder")
            return [Entry(root.stem, root, root)] if split is Split.test else []
        files = self._scan.images
        if not files and not self._scan.faults:
            passed_over = self._scan.passed_over_text(self.OUTSIDE)
            raise FileNotFoundError(
                f"{root}: expected images ({', '.join(IMAGE_SUFFIXES[:8])}, ...) in the folder, got none"
                + (f"; {passed_over}" if passed_over else "")
            )
        if split is not Split.test:
            return []
        ids = member_ids(files, root)
        entries = [Entry(image_id, path, root) for image_id, path in zip(ids, files, strict=True)]
        return [*entries, *fault_entries(self._scan.faults)]

    @functools.cached_property
    def _scan(self) -> FolderScan:
        found = scan_images(Path(self.root), outside=self.outside)
        if passed_over := found.passed_over_text(self.OUTSIDE):
            logger.warning("%s: %s", self.root, passed_over)
        return found


@dataclass(kw_only=True)
class DetectedImages(ImageFolderSource):
    """The images of `detpipe detect source=...`, with the settings of the command."""

    OUTSIDE: ClassVar[str] = "outside"


def fault_entries(faults: Iterable[tuple[Path, str]]) -> list[Entry]:
    """An entry for each tar and member that can't be read, so that it is named and counted as an unusable image."""
    return [Entry(str(path), None, path, fault=finding("broken_image", path, reason)) for path, reason in faults]


def member_ids(paths: Sequence[Path], root: Path) -> list[str]:
    """The ids of images below `root`: of Parquet files the rows' ids, if they are unique, else `shortest_ids`."""
    rows = [row_id(path) for path in paths]
    if any(rows):
        ids = [row or path.name for row, path in zip(rows, paths, strict=True)]
        return ids if len(set(ids)) == len(ids) else [_below(path, root).as_posix() for path in paths]
    return shortest_ids([_below(path, root) for path in paths])


def _below(path: Path, root: Path) -> Path:
    """The path relative to `root`; the name of `root` itself, which is a file with members that is damaged."""
    return path.relative_to(root) if path != root else Path(root.name)


def row_id(path: Path) -> str | None:
    """The id of an image in a Parquet file; None for another image."""
    place = next((one for one in path.parents if one.suffix.lower() == PARQUET), None)
    return None if place is None or is_existing_folder(place) else path.relative_to(place).as_posix()


def shortest_ids(paths: Sequence[Path]) -> list[str]:
    """The stems of the paths, the paths without suffix, or the whole paths: the first of these that is unique."""
    stems = [path.stem for path in paths]
    bare = [path.with_suffix("").as_posix() for path in paths]
    for names in (stems, bare):
        if max(Counter(names).values(), default=0) <= 1:
            return names
    return [path.as_posix() for path in paths]
