"""Label Studio's regions: rotated ones, several annotations, and tasks that nobody has looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detpipe.labels.tools.exchange import Export, ExportedImage, ExportedObject
from detpipe.labels.tools.label_studio import labelling_interface, read_label_studio, write_label_studio


def region(**value: Any) -> dict[str, Any]:
    box = {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": ["cat"], **value}
    return {"id": "r", "type": "rectanglelabels", "original_width": 200, "original_height": 100, "value": box}


def write(path: Path, *annotations: dict[str, Any]) -> Path:
    path.write_text(json.dumps([{"data": {"image": "a.jpg"}, "annotations": list(annotations)}]))
    return path


def test_a_rotated_region_gives_the_upright_box_around_it(tmp_path: Path) -> None:
    # 60 x 40 pixels at (20, 20), turned by 90 degrees clockwise around this corner.
    path = write(tmp_path / "a.json", {"result": [region(), region(rotation=90)]})
    plain, turned = read_label_studio(path)[0].objects
    assert plain.box == pytest.approx((20, 20, 80, 60))
    assert turned.box == pytest.approx((-20, 20, 20, 80))


def test_the_last_submitted_annotation_counts(tmp_path: Path) -> None:
    first, second = {"result": [region()]}, {"result": [{"type": "choices"}, region(rectanglelabels=[])]}
    skipped = {"result": [region()], "was_cancelled": True}
    assert read_label_studio(write(tmp_path / "a.json", first, second, skipped))[0].objects == []
    assert read_label_studio(write(tmp_path / "b.json", skipped)) == []
    assert read_label_studio(write(tmp_path / "c.json")) == []


def test_ids_of_regions_have_no_hash(tmp_path: Path) -> None:
    """Label Studio cuts ids there, so that the regions of "a#1" would become one."""
    objects = [ExportedObject(key=f"0123/train/a#1 100%/{number}", label="cat", box=(0, 0, 9, 9)) for number in (0, 1)]
    one = ExportedImage(
        key="train/a#1 100%", name="a#1 100%.jpg", size=(100, 200), objects=objects, missing=[], detections=[]
    )
    write_label_studio(tmp_path / "a.json", Export(folder=tmp_path, classes=["cat"], images=[one]))
    (task,) = json.loads((tmp_path / "a.json").read_bytes())
    result = task["predictions"][0]["result"]
    assert [some["id"] for some in result] == [f"0123/train/a%231 100%25/{number}" for number in (0, 1)]
    (back,) = read_label_studio(write(tmp_path / "b.json", {"result": result}))
    assert [some.key for some in back.objects] == [some.key for some in objects]


def test_names_of_classes_are_escaped() -> None:
    assert '<Label value="a &amp; &lt;b&gt;"/>' in labelling_interface(["a & <b>"])
