"""Pickled proposals of Detectron, Detectron2 and MMDetection: reading, and content for writing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.proposals.files.box_table import BoxTable, ProposalFileError, StoredBoxes, as_stored
from detpipe.proposals.files.safe_pickle import BoxMode, load_numbers
from detpipe.structures import Float32Array, ImageRecord, Proposals


def read_pickle(path: Path) -> BoxTable:
    """The boxes of a .pkl file in one of these formats:

    - Detectron2 (data/build.py, load_proposals_into_dataset): {"ids", "boxes", "objectness_logits", "bbox_mode"};
      Detectron's older names "indexes" and "scores" are also accepted. Boxes are x1 y1 x2 y2, or x y width height if
      bbox_mode is 1.
    - MMDetection 3 (DumpProposals): {"folder/file.jpg": InstanceData or dict of "bboxes" and "scores", or (N, 5)}.
    - MMDetection 2: a list of (N, 5) or (N, 4) arrays, one per image, in the order of the data set.

    Raises UnsafePickleError for a pickle that would run code, ProposalFileError for other content.
    """
    content = load_numbers(path)
    if isinstance(content, list):
        boxes = {str(number): as_stored(path, str(number), one) for number, one in enumerate(content)}
        return BoxTable(path, boxes, nameless=True)
    if isinstance(content, dict) and "boxes" in content:
        return _detectron(path, content)
    if isinstance(content, dict) and all(isinstance(name, str) for name in content):
        return BoxTable(path, {name: _mmdetection(path, name, one) for name, one in content.items()})
    raise ProposalFileError(
        f"{path}: expected proposals of Detectron2 (a dict with ids, boxes, objectness_logits) or MMDetection (a "
        f"list of arrays, or a dict from file names), got a {type(content).__name__}"
    )


def _detectron(path: Path, content: dict[str, Any]) -> BoxTable:
    ids = content.get("ids", content.get("indexes"))
    scores = content.get("objectness_logits", content.get("scores"))
    if ids is None or scores is None or not len(ids) == len(scores) == len(content["boxes"]):
        raise ProposalFileError(
            f"{path}: expected Detectron's ids, boxes and objectness_logits of equal lengths, "
            f"got {', '.join(f'{key} ({_length(value)})' for key, value in content.items())}"
        )
    mode = content.get("bbox_mode", BoxMode.XYXY_ABS)
    if not isinstance(mode, int) or mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        raise ProposalFileError(f"{path}: expected bbox_mode 0 (x1 y1 x2 y2) or 1 (x y width height), got {mode}")
    table: dict[str, StoredBoxes] = {}
    for image_id, boxes, logits in zip(ids, content["boxes"], scores, strict=True):
        name = str(image_id)
        if name in table:
            raise ProposalFileError(f"{path}: expected each image once, got {name} twice")
        stored = as_stored(path, name, boxes, logits)
        table[name] = from_corner_and_size(stored) if mode == BoxMode.XYWH_ABS else stored
    return BoxTable(path, table, by_id=True)


def from_corner_and_size(stored: StoredBoxes) -> StoredBoxes:
    """x y width height -> x1 y1 x2 y2."""
    corner, size = stored.boxes[:, :2], stored.boxes[:, 2:]
    return StoredBoxes(np.concatenate([corner, corner + size], axis=1), stored.scores)


def _mmdetection(path: Path, name: str, one: Any) -> StoredBoxes:
    if not isinstance(one, dict):
        return as_stored(path, name, one)
    if "bboxes" not in one:
        raise ProposalFileError(f"{path}: image {name}: expected bboxes and scores, got {sorted(map(str, one))}")
    return as_stored(path, name, one["bboxes"], one.get("scores"))


def _length(value: Any) -> str:
    return str(len(value)) if hasattr(value, "__len__") else str(value)


def to_detectron2(images: Iterable[tuple[ImageRecord, Proposals]]) -> dict[str, Any]:
    """The content for Detectron2's load_proposals_into_dataset, images sorted by id. It needs every image.

    Detectron2 sorts by `argsort()[::-1]`, which reverses ties, so equal scores are lowered to successive float32
    values. The scores are not logits; Detectron2 uses only their order.
    """
    sorted_images = sorted(images, key=lambda one: _by_number(one[0]))
    return {
        "ids": [record.image_id for record, _ in sorted_images],
        "boxes": [proposals.boxes for _, proposals in sorted_images],
        "objectness_logits": [_strictly_falling(proposals.scores) for _, proposals in sorted_images],
        "bbox_mode": int(BoxMode.XYXY_ABS),
    }


def to_mmdetection(images: Iterable[tuple[ImageRecord, Proposals]]) -> dict[str, dict[str, Float32Array]]:
    """The content for MMDetection 3's BaseDetDataset.load_proposals, by "folder/file.jpg". It needs every image.

    Raises ValueError if two images have the same file and folder name.
    """
    table: dict[str, dict[str, Float32Array]] = {}
    for record, proposals in images:
        name = "/".join(record.path.parts[-2:])
        if name in table:
            raise ValueError(
                f"mmdetection: expected different folders or file names, got {name} twice; use mmdetection2"
            )
        table[name] = {"bboxes": proposals.boxes, "scores": proposals.scores}
    return table


def to_mmdetection2(images: Iterable[tuple[ImageRecord, Proposals]]) -> list[Float32Array]:
    """The content for MMDetection 2's CustomDataset.load_proposals: (N, 5), the score last, in the data set's order."""
    return [np.concatenate([one.boxes, one.scores[:, None]], axis=1) for _, one in images]


def _by_number(record: ImageRecord) -> tuple[int, str]:
    number = record.image_id if isinstance(record.image_id, int) else 0
    return number, str(record.image_id)


def _strictly_falling(scores: Float32Array) -> Float32Array:
    """The scores lowered where needed so that they strictly decrease."""
    if (scores[1:] < scores[:-1]).all():
        return scores
    falling = scores.copy()
    for i in range(1, len(falling)):
        falling[i] = min(falling[i], np.nextafter(falling[i - 1], np.float32(-np.inf)))
    return falling
