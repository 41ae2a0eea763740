"""From labels that were edited in another tool to corrections: what was added, removed and changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

import numpy as np

from detpipe import boxes as geometry
from detpipe.datasets.coco_dataset import common_folder
from detpipe.datasets.image_finder import UPLOADED, PathIndex
from detpipe.datasets.source import Split
from detpipe.labels.corrections import Action, Correction, CorrectionError
from detpipe.labels.tools.exchange import Box, EditedImage, EditedObject, image_of_key, object_key, pixels
from detpipe.structures import Dataset, GroundTruth, ImageRecord

SAME_PLACE = 0.5
"""Boxes without a key are of the same object from this IoU on."""


@dataclass
class LabelDiff:
    """corrections: by image, in the order of the data set. images: number of images of the data set in the file.

    unknown: names of images that the data set does not have, or has several times.
    """

    corrections: list[Correction] = field(default_factory=list)
    images: int = 0
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    split: Split
    record: ImageRecord
    truth: GroundTruth
    classes: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.split.value}/{self.record.image_id}"


def diff_labels(
    splits: Mapping[Split, Dataset], digest: str, edited: Sequence[EditedImage], *, tolerance: float
) -> LabelDiff:
    """Compare edited images with the data set. Images that are not among them stay as they are.

    digest: of all labels. An object is found by its key, else as the edited box with the greatest IoU of at least 0.5,
    of the same class first. A box is the same if no side has moved by more than `tolerance` pixels, measured within the
    image: tools round boxes and clip them. No edited images give no corrections. Raises CorrectionError for an edited
    box without area, which names its image.
    """
    places = [
        _Place(split, record, truth, dataset.classes)
        for split, dataset in splits.items()
        for record, truth in zip(dataset.records, (dataset.measured_truth or {}).values(), strict=False)
    ]
    by_key = {place.key: place for place in places}
    folder = common_folder([place.record for place in places])
    index = PathIndex((place.record.path.absolute().relative_to(folder).as_posix(), place) for place in places)
    names = PathIndex((place.record.path.name, place) for place in places)
    found: dict[str, EditedImage] = {}
    diff = LabelDiff()
    known = [(image, by_key.get(image.key or _image_of_objects(image.objects, digest) or "")) for image in edited]
    # Keys first: a tool may have given the name of one image to another.
    for image, place in sorted(known, key=lambda one: one[1] is None):
        place = place or _by_name(image.name, index, names)
        if place is None or place.key in found:
            diff.unknown.append(image.name)
        else:
            found[place.key] = image
    for place in places:
        if place.key in found:
            diff.images += 1
            try:
                objects = _in_pixels(found[place.key], place.record.image_size)
                diff.corrections += _corrections(place, digest, objects, tolerance)
            except ValueError as error:
                raise CorrectionError(f"image {found[place.key].name}: {error}") from error
    return diff


def _image_of_objects(objects: Sequence[EditedObject], digest: str) -> str | None:
    """The key of the image that all keys of objects agree on; None without keys. Tools rename images on export."""
    images = {image_of_key(digest, one.key) for one in objects if one.key is not None} - {None}
    return images.pop() if len(images) == 1 else None


def _in_pixels(image: EditedImage, size: tuple[int, int]) -> list[EditedObject]:
    if not image.are_shares:
        return image.objects
    return [replace(one, box=pixels(one.box, size)) for one in image.objects]


def _by_name(name: str, index: PathIndex[_Place], names: PathIndex[_Place]) -> _Place | None:
    """The image that a name in a file means: a path of any machine, a URL, or what a tool has made of it.

    names: the index of the names without folders, which a tool may have left out: the name must then be the only one.
    """
    written = name.partition("?d=")[2] or name.partition("?")[0]
    for path in dict.fromkeys((written, unquote(written))):
        parts = [one for one in path.replace("\\", "/").split("/") if one not in ("", ".", "..") and ":" not in one]
        if not parts:
            continue
        uploaded = UPLOADED.fullmatch(parts[-1])
        for places, tail in (
            (index, parts),
            (names, parts[-1:]),
            (names, [parts[-1] if uploaded is None else uploaded[2]]),
        ):
            found = places.find(tail)
            if len(found) == 1:
                return found[0]
    return None


def _corrections(place: _Place, digest: str, edited: Sequence[EditedObject], tolerance: float) -> list[Correction]:
    truth = place.truth
    matched = _matched(place, digest, edited)
    corrections = []
    for index in range(len(truth)):
        label = place.classes[int(truth.labels[index]) - 1]
        if index not in matched:
            corrections.append(_correction(place, Action.remove, index))
            continue
        one = edited[matched[index]]
        moved = not _is_same(one.box, truth.boxes[index].tolist(), place.record.image_size, tolerance)
        if moved or one.label != label:
            corrections.append(
                _correction(
                    place,
                    Action.change,
                    index,
                    box=one.box if moved else None,
                    label=one.label if one.label != label else None,
                )
            )
    taken = set(matched.values())
    corrections += [
        _correction(place, Action.add, None, box=one.box, label=one.label)
        for row, one in enumerate(edited)
        if row not in taken
    ]
    return corrections


def _correction(
    place: _Place, action: Action, index: int | None, *, box: Box | None = None, label: str | None = None
) -> Correction:
    return Correction(
        image=place.record.image_id, action=action, object=index, box=box, label=label, split=place.split.value
    )


def _matched(place: _Place, digest: str, edited: Sequence[EditedObject]) -> dict[int, int]:
    """From the index of an object to the row of the edited box that it is now."""
    keys = {object_key(digest, place.key, index): index for index in range(len(place.truth))}
    boxes = np.array([one.box for one in edited], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    overlaps = geometry.iou(place.truth.boxes, boxes)
    by_key: dict[int, list[int]] = {}
    for row, one in enumerate(edited):
        if one.key in keys:
            by_key.setdefault(keys[one.key], []).append(row)
    # A copied box has the key of its original: the one that has moved less is the object.
    found = {index: max(rows, key=lambda row: overlaps[index, row]) for index, rows in by_key.items()}
    free = [row for row in range(len(edited)) if row not in found.values()]
    candidates = [
        (
            edited[row].label == place.classes[int(place.truth.labels[index]) - 1],
            float(overlaps[index, row]),
            index,
            row,
        )
        for index in range(len(place.truth))
        if index not in found
        for row in free
        if overlaps[index, row] >= SAME_PLACE
    ]
    used: set[int] = set()
    for _, _, index, row in sorted(candidates, key=lambda one: (not one[0], -one[1], one[2], one[3])):
        if index not in found and row not in used:
            found[index] = row
            used.add(row)
    return found


def _is_same(one: Sequence[float], other: Sequence[float], size: tuple[int, int], tolerance: float) -> bool:
    """Whether the parts of two boxes within the image have the same sides. size: (height, width)."""
    height, width = size
    limits = (width, height, width, height)
    inside = [[min(max(value, 0.0), limit) for value, limit in zip(box, limits, strict=True)] for box in (one, other)]
    return all(abs(a - b) <= tolerance for a, b in zip(*inside, strict=True))
