"""Proposals from a COCO result file: the boxes of any detector, their classes forgotten."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from detpipe.proposals.box_table import BoxTable, ProposalFileError, as_stored
from detpipe.proposals.detectron_pkl import from_corner_and_size


def read_coco_results(path: Path) -> BoxTable:
    """The boxes of a list [{"image_id", "bbox": [x, y, width, height], "score"}, ...] by image, in any order.

    Raises ProposalFileError for another content.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ProposalFileError(f"{path}: wanted a COCO result file, got no JSON: {error}") from error
    if not isinstance(content, list):
        raise ProposalFileError(f"{path}: wanted COCO's list of results, got a {type(content).__name__}")
    rows: defaultdict[str, list[list[Any]]] = defaultdict(list)
    for number, result in enumerate(content):
        if not _is_result(result):
            raise ProposalFileError(
                f"{path}: result {number}: wanted image_id, bbox of four numbers and score, got {result!r:.120}"
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
