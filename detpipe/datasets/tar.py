"""Reader of images in tar files, as webdataset has them: members that differ only in their suffix are one sample.

The objects of 0001.jpg are in 0001.json (see `sample_json`) or in VOC's 0001.xml. Other members are not read. A tar is
never extracted: each member is read at its place.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import image_members, scan, without_suffix
from detpipe.datasets.image_list import fault_entries
from detpipe.datasets.parted_source import Part, PartedSource, split_in_name
from detpipe.datasets.sample_json import SampleObjects, has_objects, sample_objects
from detpipe.datasets.source import Entry, Recognised, Split
from detpipe.datasets.voc_folder import SPLIT_FOLDERS
from detpipe.datasets.voc_xml import LARGEST_XML, parse_voc_annotation
from detpipe.progress import progress
from detpipe.storage.input_json import read_json
from detpipe.storage.stored_file import container_index, read_stored

SUFFIX = ".tar"


@dataclass(kw_only=True)
class TarSource(PartedSource):
    """Tar files of images, as webdataset has them: 0001.jpg with its objects in 0001.json or 0001.xml.

    A tar with train, val or test in its name, or in a folder of this name, is this split. Without any objects, all
    images are the test split.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("root", *PartedSource.PATHS)

    root: str
    """A tar file, or a folder with tar files, also in subfolders."""

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        if root.is_dir():
            found = scan(root)
            tars = [path for path in found.files if _is_tar(path)] if not found.images else []
        else:
            tars = [root] if _is_tar(root) else []
        names = ", ".join(path.name for path in tars[:3]) + (", ..." if len(tars) > 3 else "")
        return Recognised({"root": str(root)}, f"images in tar files: {names}") if tars else None

    @property
    def name(self) -> str:
        path = Path(self.root)
        return path.stem if path.is_file() else path.name or self.root

    def named_folders(self) -> list[Path]:
        return [Path(self.root)]

    def annotated(self, split: Split) -> bool:  # noqa: ARG002
        return bool(self._objects)

    def strays(self) -> list[Finding]:
        """Findings on images without objects where others have them."""
        images = [path for images, _ in self._members.values() for path in images] if self._objects else []
        bare = [path for path in images if path not in self._objects]
        return [
            finding("missing_annotation", path, "image without .json or .xml of objects; left out") for path in bare
        ]

    def read_parts(self) -> list[Part]:
        found: dict[Split | None, list[Entry]] = {}
        for container, (images, faults) in self._members.items():
            split = self._split_of(container)
            used = [path for path in images if path in self._objects] if self._objects else images
            entries = found.setdefault(split if self._objects or split else Split.test, [])
            entries += [self._entry(path) for path in used]
            entries += fault_entries(faults)
        if not any(found.values()):
            raise ValueError(f"{self.root}: expected images in tar files, got none; check dataset.root")
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
        """The images of each tar, and what can't be read in it."""
        root = Path(self.root)
        if not root.exists():
            raise FileNotFoundError(f"{root}: expected a tar file or a folder of tar files, got no such path")
        tars = [root] if root.is_file() else [one for one in scan(root, outside=self.outside).files if _is_tar(one)]
        if not tars:
            raise FileNotFoundError(f"{root}: expected tar files in the folder, got none; check dataset.root")
        return {one: image_members(one) for one in progress(iter(tars), "read tars", total=len(tars), unit="files")}

    @functools.cached_property
    def _objects(self) -> Mapping[Path, tuple[Path, SampleObjects | Finding]]:
        """From each image that has them to its annotation and the objects there, or what is wrong with it."""
        places = [(path, container) for container, (images, _) in self._members.items() for path in images]
        found = {}
        for path, container in progress(iter(places), "read labels", total=len(places), unit="images"):
            one = _annotation(path, container_index(container).members, container)
            if one is not None:
                found[path] = one
        return found


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX


def _annotation(image: Path, names: Collection[str], container: Path) -> tuple[Path, SampleObjects | Finding] | None:
    """The annotation of an image in a tar with the objects there, or its fault; None if it has none."""
    stem = without_suffix(image.relative_to(container).as_posix())
    path = container / f"{stem}.json"
    try:
        if f"{stem}.json" in names:
            content = read_json(path, "a JSON file of objects")
            if has_objects(content):
                return path, sample_objects(content, path)
        if f"{stem}.xml" in names:
            path = container / f"{stem}.xml"
            xml = parse_voc_annotation(read_stored(path, "a VOC annotation in XML", LARGEST_XML), path)
            return path, SampleObjects(xml.objects, xml.stated_size, xml.notes)
    except (ValueError, OSError) as error:
        return path, finding("broken_annotation", path, str(error).removeprefix(f"{path}: "))
    return None
