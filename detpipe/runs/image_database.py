"""What the commands on databases of images ask of one: its digest, and the names of its classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from detpipe.classify.images.database import ImagesReader, stored_paths
from detpipe.datasets.image_file import file_digest
from detpipe.storage.manifest import Manifest, manifest_path, read_manifest


class ClassMismatchError(ValueError):
    """Labels or classes of a database that don't fit those of a classifier or of another database."""


def database_digest(path: Path) -> str:
    """The digest of what made it; of the bytes of one that Caffe wrote. Raises ArtefactError for an unfinished one."""
    if manifest_path(path).is_file():
        return read_manifest(path).digest
    files = b"".join(file_digest(shard / "data.mdb") for shard in stored_paths(path))
    return hashlib.blake2b(files, digest_size=16).hexdigest()


def database_classes(path: Path) -> tuple[str, ...] | None:
    """The names in label order that its manifest holds; None where nobody named them. Of crops, 0 is the background."""
    return manifest_classes(read_manifest(path)) if manifest_path(path).is_file() else None


def manifest_classes(manifest: Manifest) -> tuple[str, ...] | None:
    """The names in label order of the database that a manifest is of, as `database_classes`."""
    names = manifest.settings.get("classes")
    if names is None:
        return None
    return ("background", *names) if manifest.stage == "crop" else tuple(names)


def training_classes(reader: ImagesReader) -> tuple[str, ...]:
    """The classes that a database teaches: its names, or a number for each label up to the largest.

    Raises ValueError for an empty database, ClassMismatchError for a label without a name.
    """
    if not len(reader):
        raise ValueError(f"{reader.path}: expected images to train on, got an empty database")
    names = database_classes(reader.path)
    classes = names if names is not None else tuple(str(label) for label in range(int(reader.labels.max()) + 1))
    check_labels(reader, classes)
    return classes


def check_labels(reader: ImagesReader, classes: Sequence[str]) -> None:
    """Raise ClassMismatchError unless labels are places in `classes`, and the database's names, if any, are these."""
    names = database_classes(reader.path)
    if names is not None and names != tuple(classes):
        both = [name for name in names if name in classes]
        raise ClassMismatchError(
            f"{reader.path}: expected the classifier's {len(classes)} classes in their order, got {len(names)}, "
            f"of which {len(both)} are the same; make it with the list of classes that the classifier was trained on"
        )
    if len(reader) and int(reader.labels.max()) >= len(classes):
        raise ClassMismatchError(
            f"{reader.path}: expected labels below the number of classes, {len(classes)}, got {reader.labels.max()}"
        )
