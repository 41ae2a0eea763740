"""Reader of images in tar files, as webdataset has them: members that differ only in their suffix are one sample.

The objects of 0001.jpg are in 0001.json (see `sample_json`) or in VOC's 0001.xml. Other members are not read. A tar is
never extracted: each member is read at its place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import without_suffix
from detpipe.datasets.member_source import MemberSource, Objects
from detpipe.datasets.sample_json import SampleObjects, has_objects, sample_objects
from detpipe.datasets.voc_xml import LARGEST_XML, parse_voc_annotation
from detpipe.progress import progress
from detpipe.storage.input_json import read_json
from detpipe.storage.stored_file import TAR, container_index, read_stored


@dataclass(kw_only=True)
class TarSource(MemberSource):
    """Tar files of images, as webdataset has them: 0001.jpg with its objects in 0001.json or 0001.xml.

    A tar with train, val or test in its name, or in a folder of this name, is this split. Without any objects, all
    images are the test split.
    """

    SUFFIX: ClassVar[str] = TAR
    FORMAT: ClassVar[str] = "tar files"

    root: str
    """A tar file, or a folder with tar files, also in subfolders."""

    def read_objects(self, container: Path, images: Sequence[Path]) -> Objects:
        names = container_index(container).members if images else ()
        found = {}
        for path in progress(iter(images), f"read labels of {container.name}", total=len(images), unit="images"):
            one = _annotation(path, names, container)
            if one is not None:
                found[path] = one
        return found


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
