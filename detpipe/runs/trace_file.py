"""object_traces.json: what `detpipe detect` did with each object of the test images.

The file has a column for each field of `ObjectTrace`, one value for each object of an image.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detpipe.classify.object_trace import Box, Fate, ObjectTrace
from detpipe.classify.settings import DetectConfig, Duplicates
from detpipe.runs.run_folder import dataset_digest
from detpipe.storage.atomic import write_bytes
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_dataclass
from detpipe.structures import Dataset, ImageId

REMEDY = "run `detpipe detect` with overwrite=true to make it again"


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """The settings of `detect` that decide what becomes of a region; see `DetectConfig`.

    duplicates: detect.fast_rcnn.duplicates. Older files have none.
    """

    max_proposals: int
    nms_iou: float
    vote_iou: float | None
    score_floor: float
    max_detections: int
    duplicates: Duplicates = Duplicates.nms

    @classmethod
    def of(cls, config: DetectConfig) -> SelectionSettings:
        """The settings of this detection."""
        names = (field.name for field in dataclasses.fields(cls) if field.name != "duplicates")
        return cls(**{name: getattr(config, name) for name in names}, duplicates=config.fast_rcnn.duplicates)


@dataclass(frozen=True, kw_only=True)
class TraceColumns:
    """The traces of the objects of an image: a column for each field of `ObjectTrace`. No objects give empty columns.

    scores are by label, as text. best: empty in older files. Raises ValueError for columns of different lengths,
    and for another label or fate.
    """

    proposal_box: list[Box]
    proposal_iou: list[float]
    proposal_rank: list[int]
    proposal_moved: list[Box]
    proposal_moved_iou: list[float]
    proposal_scores: list[dict[str, float]]
    box: list[Box]
    score: list[float]
    iou: list[float]
    rank: list[int]
    scores: list[dict[str, float]]
    fate: list[str]
    by: list[int]
    best: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.best:
            object.__setattr__(self, "best", [1.0] * len(self.fate))
        if len({len(column) for column in vars(self).values()}) > 1:
            raise ValueError("expected columns of one length, a value for each object")
        for fate in self.fate:
            Fate(fate)
        for one in (*self.proposal_scores, *self.scores):
            if not all(label.isdecimal() for label in one):
                raise ValueError(f"scores: expected labels as keys, got {', '.join(one)[:100]}")

    def __len__(self) -> int:
        return len(self.fate)

    def traces(self) -> list[ObjectTrace]:
        """The trace of each object."""
        columns = {name: list(column) for name, column in vars(self).items()}
        for name in ("proposal_scores", "scores"):
            columns[name] = [{int(label): score for label, score in one.items()} for one in columns[name]]
        columns["fate"] = [Fate(fate) for fate in self.fate]
        return [ObjectTrace(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def to_columns(traces: Sequence[ObjectTrace]) -> dict[str, list[Any]]:
    """The traces of an image as JSON values: the content of `TraceColumns`."""
    return {field.name: [getattr(one, field.name) for one in traces] for field in dataclasses.fields(ObjectTrace)}


def from_columns(columns: Any, where: str) -> list[ObjectTrace]:
    """The inverse of `to_columns`. Raises DataclassJsonError that begins with `where`."""
    return from_json(columns, TraceColumns, where).traces()


@dataclass(frozen=True, kw_only=True)
class TraceFile:
    """The content of the file. dataset: digest of the objects. detect: the settings that held.

    images: of each image in order; null for an unreadable image.
    """

    dataset: str
    detect: SelectionSettings
    images: list[TraceColumns | None]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """The traces of the objects of a data set. detect: the settings that held. images: unreadable ones are missing."""

    detect: SelectionSettings
    images: Mapping[ImageId, Sequence[ObjectTrace]]


def write_traces(
    path: Path, dataset: Dataset, config: DetectConfig, traces: Sequence[Sequence[ObjectTrace] | None]
) -> None:
    """Write the file atomically. traces: of each image in order. Without annotations an earlier file is deleted."""
    if dataset.ground_truth is None:
        path.unlink(missing_ok=True)
        return
    content = {
        "dataset": dataset_digest(dataset),
        "detect": {**vars(SelectionSettings.of(config)), "duplicates": config.fast_rcnn.duplicates.value},
        "images": [to_columns(one) if one is not None else None for one in traces],
    }
    write_bytes(path, (json.dumps(content, separators=(",", ":")) + "\n").encode())


def read_traces(path: Path, dataset: Dataset) -> Traces | None:
    """Read the file; None if it is missing, or is of other images or objects.

    Raises DataclassJsonError, which names the file, the key and the remedy, for a damaged file.
    """
    if not path.is_file():
        return None
    content = read_dataclass(path, TraceFile, REMEDY)
    if content.dataset != dataset_digest(dataset):
        return None
    truth = dataset.ground_truth or {}
    counts = [len(truth[record.image_id].measured) for record in dataset.records if truth]
    found = content.images
    if [len(one) if one is not None else count for one, count in zip(found, counts, strict=False)] != counts:
        raise DataclassJsonError(
            f"{path}: images: expected a trace of each object of {dataset.name}, got other numbers; {REMEDY}"
        )
    return Traces(
        detect=content.detect,
        images={
            record.image_id: one.traces() for record, one in zip(dataset.records, found, strict=True) if one is not None
        },
    )
