"""Digests of single images and their objects, kept in the run folder, to name what has changed since.

An artefact's manifest has one digest of a whole split. It tells that a split has changed, but not what.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.runs.run_folder import RunFolder, dataset_digest, images_digest, object_values
from detpipe.storage.atomic import write_bytes
from detpipe.storage.dataclass_json import DataclassJsonError, read_dataclass
from detpipe.storage.manifest import digest_of
from detpipe.storage.stored_file import stored_size
from detpipe.structures import Dataset

MOST_NAMED = 3
"""Images named in a message; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """The content of a split. classes: its names. images and objects: a digest for each image id, as text."""

    classes: list[str]
    images: dict[str, str]
    objects: dict[str, str]


def record_of(dataset: Dataset) -> DatasetRecord:
    """The record of a split. Without annotations, objects is empty."""
    truth = dataset.ground_truth or {}
    return DatasetRecord(
        classes=list(dataset.classes),
        images={
            str(record.image_id): digest_of([record.image_size, stored_size(record.path)])[:12]
            for record in dataset.records
        },
        objects={
            str(record.image_id): digest_of(object_values(truth[record.image_id].measured))[:12]
            for record in dataset.records
            if truth
        },
    )


def remember(folder: RunFolder, datasets: Iterable[Dataset]) -> None:
    """Keep the records of splits in the run folder, in datasets/DIGEST.json, unless they are there."""
    for dataset in datasets:
        path = _path(folder, dataset_digest(dataset))
        if not path.is_file():
            one = record_of(dataset)
            content = {"classes": one.classes, "images": one.images, "objects": one.objects}
            write_bytes(path, (json.dumps(content) + "\n").encode())
            # Proposals and detections have the digest of the images alone.
            write_bytes(_path(folder, images_digest(dataset)), (json.dumps(content) + "\n").encode())


def explainer(folder: RunFolder, datasets: Mapping[str, Dataset]) -> Callable[[str, str], str | None]:
    """A function from the name of an input and its earlier digest to what has changed, for `Artefact`.

    datasets: the splits of today, by the names of the inputs. It returns None for other inputs.
    """

    def explain(name: str, earlier: str) -> str | None:
        dataset = datasets.get(name)
        if dataset is None:
            return None
        try:
            before = read_dataclass(_path(folder, earlier), DatasetRecord)
        except (OSError, DataclassJsonError):  # made by an earlier version, or in another run folder
            return f"the images, objects or classes of {name} changed"
        return "; ".join(changes(before, record_of(dataset))) or None

    return explain


def changes(before: DatasetRecord, now: DatasetRecord) -> list[str]:
    """The changes of a split, each with the names of the first images. No changes give []."""
    both = before.images.keys() & now.images.keys()
    found = []
    if before.classes != now.classes:
        found.append(f"classes changed: {', '.join(before.classes)} -> {', '.join(now.classes)}")
    for ids, one, many in (
        ([name for name in now.images if name not in before.images], "1 image added", "images added"),
        ([name for name in before.images if name not in now.images], "1 image removed", "images removed"),
        (
            [name for name in now.images if name in both and before.images[name] != now.images[name]],
            "1 image file changed",
            "image files changed",
        ),
        (
            [name for name in now.images if name in both and before.objects.get(name) != now.objects.get(name)],
            "annotations of 1 image changed",
            "annotations of {} images changed",
        ),
    ):
        if ids:
            what = one if len(ids) == 1 else many.format(len(ids)) if "{}" in many else f"{len(ids)} {many}"
            found.append(f"{what}: {_named(ids)}")
    return found


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(ids[:MOST_NAMED]) + more


def _path(folder: RunFolder, digest: str) -> Path:
    return folder.path / "datasets" / f"{digest}.json"
