"""The forms of MegaDetector's results, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.megadetector import (
    FoundBox,
    FoundImage,
    MegaDetectorFileError,
    is_megadetector,
    read_megadetector,
)

NATIVE = {"info": {"format_version": "1.6"}, "detection_categories": {"1": "animal", "2": "person"}}
"""The head of a file in MegaDetector's own form."""


def read(folder: Path, content: Any) -> dict[str, FoundImage]:
    path = folder / "md.json"
    path.write_text(json.dumps(content))
    return read_megadetector(path)


def test_the_native_form(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [
        {
            "file": "a\\1.jpg",
            "detections": [
                {"category": "1", "conf": 0.9, "bbox": [0.25, 0.5, 0.5, 0.25], "classifications": [["3", 0.9]]},
                {"category": "9", "conf": 0.9, "bbox": [0, 0, 1, 1]},
                {"category": "2", "conf": 0.1, "bbox": [0, 0, 1, 1.004]},
            ],
        },
        {"file": "empty.jpg", "detections": [], "failure": None},
        {"file": "bad.jpg", "detections": None, "failure": "Failure image access"},
        {"file": "film.mp4", "frame_rate": 20, "frames_processed": [0], "detections": []},
    ]
    assert read(tmp_path, {**NATIVE, "images": images}) == {
        "a\\1.jpg": FoundImage(
            (FoundBox((0.25, 0.5, 0.75, 0.75), 0.9, "animal"), FoundBox((0, 0, 1, 1.004), 0.1, "person")), True
        ),
        "empty.jpg": FoundImage(()),
        "bad.jpg": FoundImage((), failure="Failure image access"),
    }
    assert "1 video left out" in caplog.text
    assert read(tmp_path, {**NATIVE, "images": []}) == {}


def test_the_forms_of_microsoft(tmp_path: Path) -> None:
    expected = {"a.jpg": FoundImage((FoundBox((1, 2, 30, 40), 0.5, "animal"),)), "b.jpg": FoundImage(())}
    one = {"category": "animal", "confidence": 0.5, "bbox": [1, 2, 30, 40]}
    assert read(tmp_path, [{"file": "a.jpg", "detections": [one]}, {"file": "b.jpg", "detections": []}]) == expected
    rows = [
        {"img_id": "a.jpg", "bbox": [[1, 2, 30, 40]], "category": [0], "confidence": [0.5]},
        {"img_id": "b.jpg", "bbox": [], "category": [], "confidence": []},
    ]
    assert read(tmp_path, {"annotations": rows, "categories": {"0": "animal"}}) == expected
    classified = {"img_id": "a.jpg", "bbox": [[1, 2, 30, 40]], "det_category": [0], "det_confidence": [0.5]}
    assert read(tmp_path, {"annotations": [classified], "det_categories": ["animal"]}) == {"a.jpg": expected["a.jpg"]}


@pytest.mark.parametrize(
    "content",
    [[], {}, [{"image_id": 1}], {"images": [{"id": 1}], "annotations": [], "categories": []}, {"annotations": []}, 3],
)
def test_other_content_is_no_result_of_megadetector(content: Any) -> None:
    assert not is_megadetector(content)


def of_box(**changes: Any) -> dict[str, Any]:
    box = {"category": "1", "conf": 0.5, "bbox": [0, 0, 0.5, 0.5], **changes}
    return {**NATIVE, "images": [{"file": "a.jpg", "detections": [box]}]}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([], "MegaDetector result file"),
        (of_box(conf=float("nan")), "conf"),
        (of_box(conf="high"), "conf"),
        (of_box(conf=True), "conf"),
        (of_box(bbox=[0, 0, 1]), "bbox"),
        (of_box(bbox=None), "bbox"),
        (of_box(bbox=[0, 0, 1e400, 1]), "bbox"),
        (of_box(bbox=[10, 10, 50, 50]), "shares"),
        (of_box(bbox=[0.5, 0.5, -0.1, 0.1]), "width, height"),
        ({**NATIVE, "images": [{"file": "a.jpg", "detections": None}]}, "list of detections"),
        ({**NATIVE, "images": [{"file": "a.jpg", "detections": ["x"]}]}, "list of detections"),
        ({**NATIVE, "images": ["a.jpg"]}, "image 0"),
        ({**NATIVE, "images": [{"file": "a.jpg", "detections": []}] * 2}, "twice"),
        ({"detection_categories": ["animal", 3], "images": []}, "detection_categories"),
        ([{"file": "a.jpg", "detections": [{"category": "animal", "bbox": [0, 0, 1, 1]}]}], "confidence"),
        (
            [{"file": "a.jpg", "detections": [{"category": "animal", "confidence": 0.5, "bbox": [5, 5, 4, 9]}]}],
            "x1, y1, x2, y2",
        ),
        ({"annotations": [{"img_id": "a.jpg", "bbox": [[0, 0, 1, 1]], "category": [], "confidence": []}]}, "length"),
        ({"annotations": [{"img_id": "a.jpg", "bbox": None, "category": [], "confidence": []}]}, "lists"),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(tmp_path: Path, content: Any, named: str) -> None:
    with pytest.raises(MegaDetectorFileError, match=named) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'md.json'}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
