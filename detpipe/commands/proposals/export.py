"""`detpipe proposals export`: the proposals of a split as a file that other programs read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.commands.proposals.settings import ExportFormat, ProposalsExport
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
"""By which `proposals=import` knows the form."""


def run(config: ProposalsExport) -> None:
    """Write the proposals of every image of the split, in the data set's order; an image without any has no boxes."""
    out = Path(config.out)
    if out.suffix != SUFFIX[config.format]:
        raise ValueError(f"out: expected a file ending in {SUFFIX[config.format]}, got {config.out!r}; give out=FILE")
    split = config.open_split()
    images: list[tuple[ImageRecord, Proposals]] = []
    for record, stored in split.read():
        if stored is None:
            logger.warning("%s: has no proposals, see the manifest; written without boxes", record.path)
        images.append((record, _NONE if stored is None else stored.proposals))
    with replaced(out) as scratch:
        write(scratch, config.format, split.dataset, images)
    boxes = sum(len(proposals) for _, proposals in images)
    logger.info("export: %d boxes of %d %s images -> %s", boxes, len(images), config.split.value, out)


def write(path: Path, form: ExportFormat, dataset: Dataset, images: Iterable[tuple[ImageRecord, Proposals]]) -> None:
    """The file in one of the forms."""
    if form is ExportFormat.coco:
        write_coco_results(path, images, category_id=dataset.category_ids[0] if dataset.category_ids else 1)
    elif form is ExportFormat.rcnn_mat:
        write_mat(path, images)
    else:
        to_content: dict[ExportFormat, Any] = {
            ExportFormat.detectron2: to_detectron2,
            ExportFormat.mmdetection: to_mmdetection,
            ExportFormat.mmdetection2: to_mmdetection2,
        }
        path.write_bytes(dump_numbers(to_content[form](images)))


_NONE = Proposals(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32))
