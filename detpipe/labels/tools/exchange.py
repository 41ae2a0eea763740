"""Labels on their way to another tool and back: the same images and objects for all formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.coco_dataset import common_folder
from detpipe.datasets.source import Split
from detpipe.labels.suspects import Suspect, SuspectKind
from detpipe.structures import Dataset, Detections, ImageId

KEY = "detpipe_id"
"""The name of the attribute that says which object of the data set a box is; see `object_key`."""
Box = tuple[float, float, float, float]


class ToolFileError(ValueError):
    """A file is not what a tool writes."""


@dataclass(frozen=True, kw_only=True)
class ExportedObject:
    """An object of the data set.

    key: see `object_key`. suspect: how it may be wrong, and the probability; None
    and 0 for an object that is not suspected.
    """

    key: str
    label: str
    box: Box
    suspect: SuspectKind | None = None
    probability: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """A box of the model: a detection, or an object that may lack a label. score: from 0 to 1."""

    label: str
    box: Box
    score: float


@dataclass(frozen=True, kw_only=True)
class ExportedImage:
    """An image. key: "split/image id". name: the path of its file below the common folder, with slashes.

    missing: objects that may lack a label. detections: of the run's detector.
    """

    key: str
    name: str
    size: tuple[int, int]
    """(height, width)."""
    objects: list[ExportedObject]
    missing: list[Proposed]
    detections: list[Proposed]


@dataclass(frozen=True, kw_only=True)
class Export:
    """All that is written for a tool. folder: the common folder of the images."""

    folder: Path
    classes: Sequence[str]
    images: list[ExportedImage]


@dataclass(frozen=True, kw_only=True)
class EditedObject:
    """A box in a tool's file. key: of the object that it was, if the tool has kept it."""

    key: str | None
    label: str
    box: Box


@dataclass(frozen=True, kw_only=True)
class EditedImage:
    """An image in a tool's file. name: of its file, or a URL. key: "split/image id", if the tool has kept it.

    are_shares: boxes are shares of the image's width and height, because the file does not say its size.
    """

    name: str
    key: str | None
    objects: list[EditedObject]
    are_shares: bool = False


def object_key(digest: str, image: str, index: int) -> str:
    """The key of an object, which tools keep: start of the digest of all labels, split/image id, index of the object.

    With the digest, a file of earlier labels, in which the indices may mean other objects, has no keys of these.
    """
    return f"{digest[:8]}/{image}/{index}"


def image_of_key(digest: str, key: str) -> str | None:
    """The "split/image id" in the key of an object; None if the key is not of these labels."""
    start, _, rest = key.partition("/")
    return rest.rpartition("/")[0] if start == digest[:8] else None


def exported(
    splits: Mapping[Split, Dataset],
    digest: str,
    suspects: Sequence[Suspect],
    detections: Mapping[ImageId, Detections],
    *,
    min_score: float,
    only_suspects: bool,
) -> Export:
    """Collect the images of the annotated splits for a tool.

    digest: of all labels. suspects: of audit.json; an object has its most probable suspicion. detections: of the test
    images, kept from `min_score` on. only_suspects: only images with a suspect. No images give an empty export.
    """
    by_object: dict[str, Suspect] = {}
    missing: dict[str, list[Proposed]] = {}
    for one in sorted(suspects, key=lambda suspect: suspect.score):
        image = f"{one.split}/{one.image}"
        if one.object is None:
            missing.setdefault(image, []).insert(0, Proposed(label=one.label, box=one.box, score=one.score))
        else:
            by_object[object_key(digest, image, one.object)] = one
    suspected = {f"{one.split}/{one.image}" for one in suspects}
    annotated = {split: dataset for split, dataset in splits.items() if dataset.measured_truth is not None}
    folder = common_folder([record for dataset in annotated.values() for record in dataset.records])
    images = []
    for split, dataset in annotated.items():
        truths = dataset.measured_truth or {}
        for record in dataset.records:
            key = f"{split.value}/{record.image_id}"
            if only_suspects and key not in suspected:
                continue
            truth = truths[record.image_id]
            found = detections.get(record.image_id) if split is Split.test else None
            images.append(
                ExportedImage(
                    key=key,
                    name=record.path.absolute().relative_to(folder).as_posix(),
                    size=record.image_size,
                    objects=[
                        _object(object_key(digest, key, index), dataset.classes[label - 1], box, by_object)
                        for index, (box, label) in enumerate(
                            zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)
                        )
                    ],
                    missing=missing.get(key, []),
                    detections=[] if found is None else _proposed(found, dataset.classes, min_score),
                )
            )
    classes = next(iter(splits.values())).classes if splits else ()
    return Export(folder=folder, classes=classes, images=images)


def _object(key: str, label: str, box: Sequence[float], suspects: Mapping[str, Suspect]) -> ExportedObject:
    suspect = suspects.get(key)
    x1, y1, x2, y2 = box
    return ExportedObject(
        key=key,
        label=label,
        box=(x1, y1, x2, y2),
        suspect=None if suspect is None else suspect.kind,
        probability=0.0 if suspect is None else suspect.score,
    )


def _proposed(found: Detections, classes: Sequence[str], min_score: float) -> list[Proposed]:
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        Proposed(label=classes[label - 1], box=tuple(box), score=score)
        for box, score, label in rows
        if score >= min_score
    ]


def shares(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box as shares of the image: x, y, width, height from 0 to 1, clipped to it. size: (height, width)."""
    height, width = size
    x1, x2 = (min(max(value / width, 0.0), 1.0) for value in (box[0], box[2]))
    y1, y2 = (min(max(value / height, 0.0), 1.0) for value in (box[1], box[3]))
    return x1, y1, x2 - x1, y2 - y1


def pixels(box: Box, size: tuple[int, int]) -> Box:
    """A box x1 y1 x2 y2 in shares of the image as one in pixels. size: (height, width)."""
    return box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0]
