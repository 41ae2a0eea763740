"""nearest_regions.json: the region nearest to each object of a data set, as `detpipe detect` scored it before NMS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.classify.nearest_regions import NearestRegions
from detpipe.runs.run_folder import dataset_digest
from detpipe.storage.atomic import write_bytes
from detpipe.storage.dataclass_json import DataclassJsonError, read_dataclass
from detpipe.structures import Dataset, ImageId


@dataclass(frozen=True, kw_only=True)
class NearestFile:
    """The content of the file. dataset: digest of the objects. images: of each image in order, a row for each object.

    An unreadable image is null.
    """

    dataset: str
    images: list[list[list[float]] | None]


def write_nearest(path: Path, dataset: Dataset, nearest: Sequence[NearestRegions | None]) -> None:
    """Write the file atomically. nearest: of each image in order. Without annotations an earlier file is deleted."""
    if dataset.ground_truth is None:
        path.unlink(missing_ok=True)
        return
    rows = [one.to_rows() if one is not None else None for one in nearest]
    write_bytes(path, (json.dumps({"dataset": dataset_digest(dataset), "images": rows}) + "\n").encode())


def read_nearest(path: Path, dataset: Dataset) -> Mapping[ImageId, NearestRegions] | None:
    """Read the file; None if it is missing, or is of other images or objects.

    Raises DataclassJsonError, which names the file and the key, for a damaged file.
    """
    if not path.is_file():
        return None
    content = read_dataclass(path, NearestFile)
    if content.dataset != dataset_digest(dataset):
        return None
    truth = dataset.ground_truth or {}
    counts = [len(truth[record.image_id].measured) for record in dataset.records if truth]
    if [
        len(rows) if rows is not None else count for rows, count in zip(content.images, counts, strict=False)
    ] != counts:
        raise DataclassJsonError(f"{path}: images: expected a row for each object of {dataset.name}, got other numbers")
    found: dict[ImageId, NearestRegions] = {}
    for record, rows in zip(dataset.records, content.images, strict=True):
        try:
            if rows is not None:
                found[record.image_id] = NearestRegions.from_rows(rows)
        except ValueError as error:
            raise DataclassJsonError(f"{path}: images: {record.image_id}: {error}") from error
    return found
