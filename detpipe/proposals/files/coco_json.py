"""Proposals as a COCO result file: read from the boxes of any detector, their classes forgotten; and written."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detpipe.proposals.files.box_table import BoxTable, ProposalFileError, as_stored
from detpipe.proposals.files.detectron_pkl import from_corner_and_size
from detpipe.structures import ImageRecord, Proposals


def read_coco_results(path: Path) -> BoxTable:
    """The boxes of a list [{"image_id", "bbox": [x, y, width, height], "score"}, ...] by image, in any order.

    Raises ProposalFileError for another content.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ProposalFileError(f"{path}: expected a COCO result file, got no JSON: {error}") from error
    if not isinstance(content, list):
        raise ProposalFileError(f"{path}: expected COCO's list of results, got a {type(content).__name__}")
    rows: defaultdict[str, list[list[Any]]] = defaultdict(list)
    for number, result in enumerate(content):
        if not _is_result(result):
            raise ProposalFileError(
                f"{path}: result {number}: expected image_id, bbox of four numbers and score, got {result!r:.120}"
            )
        rows[str(result["image_id"])].append([*result["bbox"], result["score"]])
    boxes = {name: from_corner_and_size(as_stored(path, name, of_image)) for name, of_image in rows.items()}
    return BoxTable(path, boxes, by_id=True)


def _is_result(result: Any) -> bool:
    return (
        isinstance(result, dict)
        and isinstance(result.get("image_id"), (int, str))
        and isinstance(result.get("bbox"), list)
        and len(result["bbox"]) == 4
        and all(isinstance(number, (int, float)) for number in (*result["bbox"], result.get("score")))
    )


def write_coco_results(path: Path, images: Iterable[tuple[ImageRecord, Proposals]], category_id: int) -> None:
    """Write the boxes of all images, one line a box, best first; numbers in full, so that they are read as they were.

    category_id: of every box; COCO's own evaluation, with useCats = 0, passes over those of categories that it doesn't
    know. An image without boxes leaves no trace in this form.
    """
    separator = "["
    with path.open("w", encoding="utf-8") as file:
        for record, proposals in images:
            # float64, in which the difference of two float32 of an image's size is exact.
            boxes = proposals.boxes.astype(float)
            boxes[:, 2:] -= boxes[:, :2]
            for box, score in zip(boxes.tolist(), proposals.scores.tolist(), strict=True):
                line = {"image_id": record.image_id, "category_id": category_id, "bbox": box, "score": score}
                file.write(f"{separator}\n{json.dumps(line, allow_nan=False)}")
                separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")
