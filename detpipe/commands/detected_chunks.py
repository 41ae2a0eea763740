"""The database of the detections of finished chunks, from which an interrupted `detpipe detect` continues."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detpipe.classify.object_trace import ObjectTrace
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.trace_file import from_columns, to_columns
from detpipe.storage.lmdb_pages import is_begun
from detpipe.storage.lmdb_store import LmdbReader
from detpipe.structures import Detections, LeftOut

BAD = b"bad"
"""Key of the unreadable images of the finished chunks."""


@dataclass(frozen=True)
class Found:
    """The result for one image. traces: what happened to each object; None if objects or image are unknown."""

    detections: Detections
    traces: list[ObjectTrace] | None


def unfinished(out: RunFolder) -> Path:
    """Return the path of the detections of finished chunks."""
    return out.path / "detections.lmdb"


def unreadable_before(database: Path) -> list[LeftOut]:
    """Return the unreadable images in the chunks that an earlier call finished."""
    if not is_begun(database):
        return []
    with LmdbReader(database) as reader:
        try:
            return [LeftOut(**fault) for fault in json.loads(reader.get(BAD))] if BAD in reader else []
        except (ValueError, TypeError) as error:
            raise damaged(database, error) from error


def key_of(index: int) -> bytes:
    """The key of the image with this index in the data set."""
    return f"{index:08d}".encode()


def packed(one: Found) -> bytes:
    """The record of a result."""
    found, traces = one.detections, to_columns(one.traces) if one.traces is not None else None
    return json.dumps([found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), traces]).encode()


def unpacked(record: bytes) -> Found:
    """The result in a record. Raises ValueError or TypeError for a damaged one."""
    boxes, scores, labels, traces = json.loads(record)
    detections = Detections(
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.asarray(scores, dtype=np.float32),
        np.asarray(labels, dtype=np.int64),
    )
    return Found(detections, from_columns(traces, "traces") if traces is not None else None)


def damaged(database: Path, error: Exception) -> ValueError:
    """The error for a database whose records can't be read."""
    return ValueError(
        f"{database}: expected the detections of finished images, got damaged ones ({error}); delete this folder and "
        "run the command again"
    )
