"""Base class of the formats whose images are members of files: rows of Parquet files, or members of tars."""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.entry import Entry
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import image_members, scan, suffix_of
from detpipe.datasets.image_list import fault_entries, member_ids
from detpipe.datasets.parted_source import Part, PartedSource, split_in_name
from detpipe.datasets.sample_json import SampleObjects
from detpipe.datasets.source import Recognised, Split
from detpipe.datasets.voc_folder import SPLIT_FOLDERS
from detpipe.progress import progress
from detpipe.storage.stored_file import exists, is_existing_folder, is_file

Objects = Mapping[Path, tuple[Path, SampleObjects | Finding]]
"""From each image that has them to its annotation and the objects there, or what is wrong with it."""


@dataclass(kw_only=True)
class MemberSource(PartedSource):
    """Base class. A file with train, val or test in its name, or in a folder of this name, is this split.

    Without any objects, all images are the test split. An image without objects where others have them is left out.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("root", *PartedSource.PATHS)
    SUFFIX: ClassVar[str]
    """Of the files, in lower case."""
    FORMAT: ClassVar[str]
    """What the files are, for messages: "tar files"."""

    root: str

    @abc.abstractmethod
    def read_objects(self, container: Path, images: Sequence[Path]) -> Objects:
        """The objects of the images in a file."""

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        if is_existing_folder(root):
            found = scan(root)
            files = [path for path in found.files if suffix_of(path.name) == cls.SUFFIX] if not found.images else []
        else:
            files = [root] if suffix_of(root.name) == cls.SUFFIX else []
        names = ", ".join(path.name for path in files[:3]) + (", ..." if len(files) > 3 else "")
        return Recognised({"root": str(root)}, f"images in {cls.FORMAT}: {names}") if files else None

    @property
    def name(self) -> str:
        path = Path(self.root)
        return path.stem if is_file(path) else path.name or self.root

    def named_folders(self) -> list[Path]:
        return [Path(self.root)]

    def annotated(self, split: Split) -> bool:  # noqa: ARG002
        return bool(self._objects)

    def strays(self) -> list[Finding]:
        """Findings on images without objects where others have them."""
        images = [path for paths, _ in self._members.values() for path in paths] if self._objects else []
        bare = [path for path in images if path not in self._objects]
        return [finding("missing_annotation", path, "image without an annotation; left out") for path in bare]

    def shortened(self, paths: Sequence[str]) -> list[str]:
        root = Path(self.root)
        return member_ids([root / path for path in paths], root)

    def read_parts(self) -> list[Part]:
        found: dict[Split | None, list[Entry]] = {}
        for container, (images, faults) in self._members.items():
            split = self._split_of(container)
            used = [path for path in images if path in self._objects] if self._objects else images
            entries = found.setdefault(split if self._objects or split else Split.test, [])
            entries += [self._entry(path) for path in used]
            entries += fault_entries(faults)
        if not any(found.values()):
            raise ValueError(f"{self.root}: expected images in {self.FORMAT}, got none; check dataset.root")
        return [Part(split, tuple(entries)) for split, entries in found.items() if entries]

    def _entry(self, path: Path) -> Entry:
        name = path.relative_to(self.root).as_posix()
        origin, found = self._objects.get(path, (path, None))
        if found is None:
            return Entry(name, path, origin)
        if isinstance(found, Finding):
            return Entry(name, path, origin, fault=found)
        return Entry(name, path, origin, found.objects, found.stated_size, notes=found.notes)

    def _split_of(self, container: Path) -> Split | None:
        folders = container.relative_to(self.root).parts[:-1]
        named = next((SPLIT_FOLDERS[part.lower()] for part in folders if part.lower() in SPLIT_FOLDERS), None)
        return named or split_in_name(container.stem)

    @functools.cached_property
    def _members(self) -> Mapping[Path, tuple[list[Path], list[tuple[Path, str]]]]:
        """The images of each file, and what can't be read in it."""
        root = Path(self.root)
        if not exists(root):
            raise FileNotFoundError(f"{root}: expected {self.FORMAT}, got no such path; check dataset.root")
        files = [root] if is_file(root) else scan(root, outside=self.outside).files
        own = [path for path in files if suffix_of(path.name) == self.SUFFIX]
        if not own:
            raise FileNotFoundError(f"{root}: expected {self.FORMAT} ({self.SUFFIX}), got none; check dataset.root")
        return {path: image_members(path) for path in progress(iter(own), "read names", total=len(own), unit="files")}

    @functools.cached_property
    def _objects(self) -> Objects:
        found: dict[Path, tuple[Path, SampleObjects | Finding]] = {}
        for container, (images, _) in self._members.items():
            found.update(self.read_objects(container, images))
        return found
