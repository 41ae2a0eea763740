"""Reads proposals from a COCO result file of any detector (the classes are ignored), and writes them."""

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
    """The boxes by image of a list [{"image_id", "bbox": [x, y, width, height], "score"}, ...] in any order.

    Raises ProposalFileError for other content.
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
