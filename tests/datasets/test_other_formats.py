"""Real data sets written in each format and read back: the same boxes, classes and crowds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from detpipe.class_path import load_class
from detpipe.datasets.auto import find_reading
from detpipe.datasets.check import check_source
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.formats import FORMATS
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.voc import VocSource
from tests.datasets import other_formats
from tests.datasets.other_formats import Row, rows_of

WRITERS: dict[str, Callable[[Path, Sequence[Row]], None]] = {
    "yolo": other_formats.write_yolo,
    "csv": other_formats.write_csv,
    "openimages": other_formats.write_open_images,
    "labelstudio": other_formats.write_label_studio,
    "cvat": other_formats.write_cvat,
    "labelme": other_formats.write_labelme,
}
EXACT = ("csv", "cvat", "labelme")
"""Formats with corners in pixels. The others have shares, whose last bits are rounded."""


def sources(data: Path, folder: Path) -> DatasetSource:
    if folder.name.startswith("coco"):
        return CocoSource(
            train_json=str(folder / "instances.json"), train_images=str(folder / "images"), test_share=0.0
        )
    return VocSource(root=str(folder))


@pytest.mark.parametrize("name", ["raccoon", "bccd", "cards", "coco_train"])
@pytest.mark.parametrize("word", WRITERS)
def test_real_boxes_come_back(shared_data: Path, tmp_path: Path, word: str, name: str) -> None:
    split = Split.train
    source = sources(shared_data, shared_data / name)
    dataset = source.load(split)
    sizes = {record.image_id: record.image_size for record in dataset.records}
    rows = list(rows_of(source.entries(split), sizes))[:120]
    if word == "openimages":
        rows = [row for row in rows if row[2]]  # it can't have an image without objects
    folder = tmp_path / "set"
    other_formats.link_images(folder, rows)
    WRITERS[word](folder, rows)
    other = load_class(FORMATS[word])(root=str(folder), test_share=0.0, max_bad=0)
    other.load(split)
    found = {entry.image.name: entry.objects for entry in other.entries(split)}
    assert found.keys() == {path.name for path, _, _ in rows}
    for path, _, objects in rows:
        mine = found[path.name]
        assert [one.name for one in mine] == [one.name for one in objects]
        if word == "openimages":
            assert [one.crowd for one in mine] == [one.crowd for one in objects]
        boxes, wanted = ([one.box for one in some] for some in (mine, objects))
        if word in EXACT:
            assert boxes == [tuple(map(float, box)) for box in wanted]
        else:
            assert np.allclose(np.reshape(boxes, (-1, 4)), np.reshape(wanted, (-1, 4)), rtol=0, atol=1e-10)
    assert set(other.known_classes()) == {one.name for _, _, objects in rows for one in objects}
    assert find_reading(folder).word == word
    errors = {"broken_annotation", "missing_image", "orphan_annotation", "missing_annotation"}
    assert not errors & check_source(other, full=False).counts.keys()
