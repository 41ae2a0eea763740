"""`detpipe proposals export`: write the proposals of a split in the format of another program."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.commands.proposals.settings import ExportFormat, ProposalsExport
from detpipe.console import RESULT, amount
from detpipe.proposals.files.coco_json import write_coco_results
from detpipe.proposals.files.detectron_pkl import to_detectron2, to_mmdetection, to_mmdetection2
from detpipe.proposals.files.rcnn_mat import write_mat
from detpipe.proposals.files.safe_pickle import dump_numbers
from detpipe.storage.atomic import replaced
from detpipe.structures import Dataset, ImageRecord, Proposals

logger = logging.getLogger(__name__)

SUFFIX = {
    ExportFormat.coco: ".json",
    ExportFormat.detectron2: ".pkl",
    ExportFormat.mmdetection: ".pkl",
    ExportFormat.mmdetection2: ".pkl",
    ExportFormat.rcnn_mat: ".mat",
}
"""File suffix of each format, which `proposals=import` recognizes."""


def run(config: ProposalsExport) -> None:
    """Write the proposals of all images of the split, in the data set's order; 0 boxes for those without."""
    out = Path(config.out)
    if out.suffix != SUFFIX[config.format]:
        raise ValueError(f"out: expected a file ending in {SUFFIX[config.format]}, got {config.out!r}; give out=FILE")
    split = config.open_split()
    images: list[tuple[ImageRecord, Proposals]] = []
    for record, stored in split.read():
        if stored is None:
            logger.warning("%s: no proposals, see the manifest; written with 0 boxes", record.path)
        images.append((record, _EMPTY if stored is None else stored.proposals))
    with replaced(out) as scratch:
        write(scratch, config.format, split.dataset, images)
    boxes = sum(len(proposals) for _, proposals in images)
    logger.log(
        RESULT,
        "export: %s of %s -> %s",
        amount(boxes, "boxes"),
        amount(len(images), f"{config.split.value} images"),
        out,
    )


def write(path: Path, format_: ExportFormat, dataset: Dataset, images: Iterable[tuple[ImageRecord, Proposals]]) -> None:
    """Write the file in the given format."""
    if format_ is ExportFormat.coco:
        write_coco_results(path, images, category_id=dataset.category_ids[0] if dataset.category_ids else 1)
    elif format_ is ExportFormat.rcnn_mat:
        write_mat(path, images)
    else:
        to_content: dict[ExportFormat, Any] = {
            ExportFormat.detectron2: to_detectron2,
            ExportFormat.mmdetection: to_mmdetection,
            ExportFormat.mmdetection2: to_mmdetection2,
        }
        path.write_bytes(dump_numbers(to_content[format_](images)))


_EMPTY = Proposals(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32))
