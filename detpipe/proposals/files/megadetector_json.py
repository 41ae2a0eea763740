"""Proposals from MegaDetector's results (see `datasets/megadetector.py`). Categories are ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from detpipe.datasets.megadetector import MegaDetectorFileError, parse_megadetector
from detpipe.proposals.files.box_table import BoxTable, ProposalFileError, as_stored


def megadetector_table(content: Any, path: Path) -> BoxTable:
    """The boxes by image name, of the content of a file for which `is_megadetector` is true.

    Images that MegaDetector could not read have no entry. Raises ProposalFileError, which names the file and the first
    bad image.
    """
    try:
        images = parse_megadetector(content, path)
    except MegaDetectorFileError as error:
        raise ProposalFileError(str(error)) from error
    boxes = {}
    for written, image in images.items():
        if image.failure is None:
            name = written.replace("\\", "/")
            corners = np.array([one.box for one in image.boxes], np.float64).reshape(-1, 4)
            scores = np.array([one.confidence for one in image.boxes], np.float64)
            boxes[name] = as_stored(path, name, corners, scores, are_shares=image.are_shares)
    return BoxTable(path, boxes)
