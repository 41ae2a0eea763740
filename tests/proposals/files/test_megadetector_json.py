"""Proposals from MegaDetector's JSON: shares become pixels of each image, names match by the end of the path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.proposals.files.box_table import ProposalFileError
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.proposer import ImportedBoxesError
from detpipe.structures import Dataset, ImageRecord

SIZE = (40, 60)
IMAGE = np.zeros((*SIZE, 3), np.uint8)
BOXES = [
    {"category": "1", "conf": 0.25, "bbox": [0.5, 0.25, 0.25, 0.5]},
    {"category": "2", "conf": 0.75, "bbox": [0, 0, 1, 1]},
]
PIXELS = [[0, 0, 60, 40], [30, 10, 45, 30]]  # best first


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def native(path: Path, **detections: Any) -> str:
    images = [{"file": name, "detections": found} for name, found in detections.items()]
    return write(path, {"info": {}, "detection_categories": {"1": "animal", "2": "person"}, "images": images})


def photos(*paths: str) -> Dataset:
    records = tuple(ImageRecord(path.removesuffix(".jpg"), Path("photos") / path, SIZE) for path in paths)
    return Dataset("photos", (), (), records, None)


def proposed(path: str, data: Dataset, index: int = 0) -> list[list[float]]:
    imported = ImportedProposals(path=path)
    imported.check([data])
    return imported.propose(IMAGE, data.records[index], None).boxes.tolist()


def test_shares_become_pixels_best_first(tmp_path: Path) -> None:
    path = native(tmp_path / "md.json", **{"a.jpg": BOXES, "b.jpg": []})
    data = photos("a.jpg", "b.jpg")
    assert proposed(path, data) == PIXELS
    assert proposed(path, data, 1) == []


def test_pixels_stay(tmp_path: Path) -> None:
    found = [{"category": "animal", "confidence": 0.5, "bbox": [30.0, 10.0, 45.0, 30.0]}]
    assert proposed(write(tmp_path / "ms.json", [{"file": "a.jpg", "detections": found}]), photos("a.jpg")) == [
        [30, 10, 45, 30]
    ]
    rows = {"img_id": "a.jpg", "bbox": [[30, 10, 45, 30]], "category": [0], "confidence": [0.5]}
    assert proposed(write(tmp_path / "pw.json", {"annotations": [rows], "categories": None}), photos("a.jpg")) == [
        [30, 10, 45, 30]
    ]


def test_the_same_file_name_in_folders_of_several_cameras(tmp_path: Path) -> None:
    path = native(
        tmp_path / "md.json",
        **{"C:\\2024\\north\\100\\1.jpg": BOXES[:1], "C:\\2024\\south\\100\\1.jpg": BOXES[1:], "100\\1.jpg": []},
    )
    data = photos("north/100/1.jpg", "south/100/1.jpg")
    assert proposed(path, data, 0) == PIXELS[1:]
    assert proposed(path, data, 1) == PIXELS[:1]


def test_one_name_for_two_images_is_refused(tmp_path: Path) -> None:
    path = native(tmp_path / "md.json", **{"1.jpg": BOXES})
    with pytest.raises(ImportedBoxesError, match=r"1\.jpg"):
        ImportedProposals(path=path).check([photos("north/1.jpg", "south/1.jpg")])


def test_an_image_that_failed_has_no_boxes(tmp_path: Path) -> None:
    images = [{"file": "a.jpg", "failure": "Failure image access", "detections": None}]
    path = write(tmp_path / "md.json", {"detection_categories": {"1": "animal"}, "images": images})
    with pytest.raises(ImportedBoxesError, match="none of them"):
        ImportedProposals(path=path).check([photos("a.jpg")])


def test_the_error_names_the_file_and_the_image(tmp_path: Path) -> None:
    path = native(tmp_path / "md.json", **{"a.jpg": [{"category": "1", "conf": 0.5, "bbox": [10, 10, 30, 30]}]})
    with pytest.raises(ProposalFileError, match=r"md\.json: image 'a.jpg': .*shares"):
        ImportedProposals(path=path).check()
