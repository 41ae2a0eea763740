"""The digest and the class names of a database of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from detpipe.classify.images.database import ImagesReader, stored_paths
from detpipe.datasets.image_file import file_digest
from detpipe.datasets.labelled_images import label_gaps
from detpipe.storage.manifest import Manifest, manifest_path, read_manifest
from detpipe.storage.shard_index import data_files


class ClassMismatchError(ValueError):
    """The labels or classes of a database differ from a classifier's or from another database's."""


def database_digest(path: Path) -> str:
    """Return the digest of the database's manifest, or of its bytes if Caffe wrote it.

    Raises ArtefactError for an unfinished database.
    """
    if manifest_path(path).is_file():
        return read_manifest(path).digest
    files = b"".join(file_digest(file) for shard in stored_paths(path) for file in data_files(shard))
    return hashlib.blake2b(files, digest_size=16).hexdigest()


def database_classes(path: Path) -> tuple[str, ...] | None:
    """Return the class names in label order; None if they have no names. In crops, label 0 is the background."""
    return manifest_classes(read_manifest(path)) if manifest_path(path).is_file() else None


def manifest_classes(manifest: Manifest) -> tuple[str, ...] | None:
    """Return the class names of the database with this manifest, as `database_classes`."""
    names = manifest.settings.get("classes")
    if names is None:
        return None
    return ("background", *names) if manifest.stage == "crop" else tuple(names)


def training_classes(reader: ImagesReader) -> tuple[str, ...]:
    """Return the classes of a training database: its names, or the numbers 0 to the largest label.

    Raises ValueError for an empty database and for labels that are ids, ClassMismatchError for a label without a name.
    """
    if not len(reader):
        raise ValueError(f"{reader.path}: expected images to train on, got an empty database; make it again")
    names = database_classes(reader.path)
    if names is None and (gaps := label_gaps(reader.labels.tolist())):
        raise ValueError(f"{reader.path}: expected labels 0 to K - 1 of K classes, got {gaps}")
    classes = names if names is not None else tuple(str(label) for label in range(int(reader.labels.max()) + 1))
    check_labels(reader, classes)
    return classes


def photo_form(reader: ImagesReader) -> tuple[str, bool]:
    """Return how photos are resized as `make-db` resized the images of this database, and whether it made them grey.

    Of a database without a manifest, all images have the size of the first one: Caffe's tool changes the aspect ratio.
    """
    if manifest_path(reader.path).is_file():
        settings = read_manifest(reader.path).settings
        return str(settings.get("resize", "none")), bool(settings.get("grey", False))
    channels, height, width = reader.planes(0).shape
    return f"{height}x{width}", channels == 1


def check_labels(reader: ImagesReader, classes: Sequence[str]) -> None:
    """Raise ClassMismatchError unless all labels are indices of `classes`, and the names, if any, are equal to them."""
    names = database_classes(reader.path)
    if names is not None and names != tuple(classes):
        shared = [name for name in names if name in classes]
        raise ClassMismatchError(
            f"{reader.path}: expected the classifier's {len(classes)} classes in their order, got {len(names)}, "
            f"of which {len(shared)} are the same; make the database with the classifier's list of classes"
        )
    if len(reader) and int(reader.labels.max()) >= len(classes):
        raise ClassMismatchError(
            f"{reader.path}: expected labels below the number of classes, {len(classes)}, got {reader.labels.max()}; "
            "make the database with the classifier's list of classes"
        )
