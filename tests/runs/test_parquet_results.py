"""The table of detections: columns, types, images without detections, and odd names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.runs.parquet_results import DetectionParts, ImageRows, PartsManifest, parts_table
from detpipe.storage.manifest import ArtefactError
from detpipe.structures import Detections

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

NONE = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
TWO = Detections(
    np.array([[1, 2, 3, 4], [5, 6, 7.5, 8]], np.float32), np.array([0.9, 0.25], np.float32), np.array([2, 1])
)
MANIFEST = PartsManifest(settings={"a": 1}, classifier="c", classes=["cat", "dog"])


def test_a_row_for_each_detection() -> None:
    table = parts_table([ImageRows("a", "a.jpg", NONE), ImageRows("b\udcff", "b\udcff.jpg", TWO)], ["cat", "dog"])
    first, second = table.to_pylist()
    assert first == {
        "image_id": "b\\udcff",
        "file": "b\\udcff.jpg",
        "class": "dog",
        "label": 2,
        "score": np.float32(0.9),
        "x1": 1,
        "y1": 2,
        "x2": 3,
        "y2": 4,
    }
    assert (second["class"], second["x2"]) == ("cat", 7.5)


def test_no_images_give_the_same_columns() -> None:
    assert parts_table([], ["cat"]).schema == parts_table([ImageRows("b", "b.jpg", TWO)], ["cat", "dog"]).schema
    assert len(parts_table([], ["cat"])) == 0


def test_a_later_call_knows_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "o.parquet"
    DetectionParts(folder, MANIFEST, overwrite=False).write([ImageRows("a", "a.jpg", NONE)], ["bad"])
    parts = DetectionParts(folder, MANIFEST, overwrite=False)
    assert (parts.done, parts.failed) == ({"a"}, {"bad"})
    parts.write([ImageRows("bad", "bad.jpg", TWO)], [])
    again = DetectionParts(folder, MANIFEST, overwrite=False)
    assert (again.done, again.failed, again.detections) == ({"a", "bad"}, set(), 2)
    assert len(parquet.read_table(folder)) == 2
    assert DetectionParts(folder, MANIFEST, overwrite=True).done == set()


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "o.parquet"
    DetectionParts(folder, MANIFEST, overwrite=False).write([ImageRows("a", "a.jpg", TWO)], [])
    (folder / "part-00001.parquet").write_bytes(b"")
    with pytest.raises(ArtefactError, match=r"part-00001\.parquet"):
        DetectionParts(folder, MANIFEST, overwrite=False)
    (folder / "part-00001.parquet").unlink()
    (folder / "_manifest.json").write_text("{")
    with pytest.raises(ArtefactError, match="overwrite=true"):
        DetectionParts(folder, MANIFEST, overwrite=False)
    (folder / "_manifest.json").unlink()
    with pytest.raises(ArtefactError, match="out"):
        DetectionParts(folder, MANIFEST, overwrite=True)
