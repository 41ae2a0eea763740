"""Reads proposals from JSON: boxes or masks in COCO results, or MegaDetector's boxes. Writes COCO's results."""

from __future__ import annotations

import json
import reprlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detpipe.datasets.coco_ids import plain_id
from detpipe.datasets.coco_segmentation import segmentation_box
from detpipe.datasets.megadetector import is_megadetector
from detpipe.proposals.files.box_table import BoxTable, ProposalFileError, as_stored
from detpipe.proposals.files.detectron_pkl import from_corner_and_size
from detpipe.proposals.files.megadetector_json import megadetector_table
from detpipe.storage.input_json import read_json
from detpipe.structures import ImageRecord, Proposals


def read_json_file(path: Path) -> BoxTable:
    """The boxes by image of a COCO or MegaDetector result file, whichever it is. Raises as their readers."""
    content = read_json(path, "a COCO result file or a MegaDetector result file")
    return megadetector_table(content, path) if is_megadetector(content) else coco_table(content, path)


def coco_table(content: Any, path: Path) -> BoxTable:
    """The boxes by image of a list [{"image_id", "bbox": [x, y, width, height], "score"}, ...] in any order.

    A result with a `segmentation` (polygons, or an RLE, compressed or not) and no bbox gives the box around its
    mask; an empty mask gives no box. An image_id that is a whole float is an integer.
    Raises ProposalFileError, which names the file and the first bad result, for other content.
    """
    if not isinstance(content, list):
        raise ProposalFileError(f"{path}: expected COCO's list of results, got a {type(content).__name__}")
    rows: defaultdict[str, list[list[float]]] = defaultdict(list)
    for number, result in enumerate(content):
        if not _is_result(result):
            raise ProposalFileError(
                f"{path}: result {number}: expected image_id, bbox of four numbers (or a segmentation) and score, got "
                f"{reprlib.repr(result)}"
            )
        of_image = rows[str(plain_id(result["image_id"]))]
        try:
            box = result.get("bbox") or segmentation_box(result["segmentation"])
        except ValueError as error:
            raise ProposalFileError(f"{path}: result {number}: {error}") from error
        if box is not None:
            of_image.append([*map(float, box), float(result["score"])])
    boxes = {name: from_corner_and_size(as_stored(path, name, of_image)) for name, of_image in rows.items()}
    return BoxTable(path, boxes, by_id=True)


def _is_result(result: Any) -> bool:
    return (
        isinstance(result, dict)
        and plain_id(result.get("image_id")) is not None
        and _is_number(result.get("score"))
        and (_is_box(result["bbox"]) if result.get("bbox") else bool(result.get("segmentation")))
    )


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def write_coco_results(path: Path, images: Iterable[tuple[ImageRecord, Proposals]], category_id: int) -> None:
    """Write the boxes of all images, one line per box, best first, with all digits so that reading is exact.

    category_id: for every box; COCO's own evaluation, with useCats = 0, ignores boxes of unknown categories. An image
    without boxes does not appear in this format.
    """
    separator = "["
    with path.open("w", encoding="utf-8") as file:
        for record, proposals in images:
            # In float64 the difference of two float32 coordinates is exact.
            boxes = proposals.boxes.astype(float)
            boxes[:, 2:] -= boxes[:, :2]
            for box, score in zip(boxes.tolist(), proposals.scores.tolist(), strict=True):
                line = {"image_id": record.image_id, "category_id": category_id, "bbox": box, "score": score}
                file.write(f"{separator}\n{json.dumps(line, allow_nan=False)}")
                separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")
