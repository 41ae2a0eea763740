"""Detections that know their image and classes."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import PIL.Image
import pytest

import detpipe
from detpipe import Detections, GroundTruth, ImageDetections
from detpipe.datasets.image_file import read_image
from detpipe.report.drawing import draw_detections


def grey(height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def plain() -> Detections:
    boxes = np.array([[10, 10, 40, 40], [50, 20, 70, 50]], np.float32)
    return Detections(boxes, np.array([0.9, 0.3], np.float32), np.array([2, 1]))


def known(**more: object) -> ImageDetections:
    return ImageDetections.of(plain(), **{"classes": ("cup", "key"), "source": grey(), **more})


def none(**more: object) -> ImageDetections:
    return known(**more)[[]]


def test_they_name_their_classes() -> None:
    assert known().names == ["key", "cup"]
    assert [one.name for one in known()] == ["key", "cup"]
    assert repr(known()) == "ImageDetections(key 0.90, cup 0.30)"
    assert known(classes=()).names == ["label 2", "label 1"]
    with pytest.raises(ValueError, match="labels up to 1"):
        known(classes=("cup",))


def test_indexing_keeps_image_and_classes() -> None:
    found = known()
    sure = found[found.scores > 0.5]
    assert sure.names == ["key"]
    assert sure.source is found.source
    assert len(none()) == 0


def test_the_image_is_a_reference_or_a_file(tmp_path: Path) -> None:
    pixels = grey()
    assert known(source=pixels).source is pixels
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    of_file = known(source=str(tmp_path / "a.png"))
    assert of_file.path == tmp_path / "a.png"
    np.testing.assert_array_equal(of_file.image, pixels)
    assert known().path is None
    with pytest.raises(ValueError, match=r"detpipe\.draw"):
        known(source=None).image  # noqa: B018


def test_pictures_have_what_the_floor_lets_through(tmp_path: Path) -> None:
    found = known(floor=0.5)
    only_best = draw_detections(grey(), plain()[:1], ("cup", "key"))
    np.testing.assert_array_equal(found.plot(), only_best)
    np.testing.assert_array_equal(found.plot(threshold=0), draw_detections(grey(), plain(), ("cup", "key")))
    np.testing.assert_array_equal(none().plot(), grey())
    np.testing.assert_array_equal(read_image(found.save(tmp_path / "a.png")), only_best)
    assert read_image(found.save(str(tmp_path / "a.JPG"))).shape == (60, 80, 3)
    with pytest.raises(ValueError, match=r"\.png"):
        found.save(tmp_path / "a.gif")


def test_draw_takes_any_image_and_boxes(tmp_path: Path) -> None:
    PIL.Image.fromarray(grey()).save(tmp_path / "a.png")
    drawn = draw_detections(grey(), plain(), ("cup", "key"))
    np.testing.assert_array_equal(detpipe.draw(tmp_path / "a.png", plain(), classes=["cup", "key"]), drawn)
    np.testing.assert_array_equal(detpipe.draw(grey(), known()), drawn)
    assert (detpipe.draw(grey(), plain(), threshold=0.5) != detpipe.draw(grey(), plain())).any()
    assert (detpipe.draw(grey(), GroundTruth.from_boxes([[5, 5, 30, 30]], [1])) != grey()).any()
    np.testing.assert_array_equal(detpipe.draw(grey(), GroundTruth.from_boxes([], [])), grey())
    with pytest.raises(ValueError, match="classes"):
        detpipe.draw(grey(), plain(), classes=["cup"])


def test_a_table_has_a_row_for_each_detection() -> None:
    pytest.importorskip("pandas")
    table = known(source="photos/a.jpg").to_pandas()
    assert [*table.columns] == ["file", "class", "score", "x1", "y1", "x2", "y2"]
    assert table["class"].tolist() == ["key", "cup"]
    assert table["file"].tolist() == ["photos/a.jpg"] * 2
    assert table["x2"].tolist() == [40, 70]
    empty = none().to_pandas()
    assert len(empty) == 0
    assert [*empty.columns] == [*table.columns]


def test_without_pandas_the_package_is_named() -> None:
    with mock.patch.dict(sys.modules, {"pandas": None}), pytest.raises(ImportError, match=r"detpipe\[pandas\]"):
        known().to_pandas()


def test_a_notebook_shows_picture_and_text() -> None:
    page = known(floor=0.5, classes=("cup", "<b>"), source=grey(2000, 1000))._repr_html_()
    assert 'src="data:image/jpeg;base64,' in page
    assert "1 of 2" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    gone = known(source="nowhere.jpg")._repr_html_()
    assert "<img" not in gone
    assert "nowhere.jpg" in gone


def test_show_uses_the_viewer_of_the_system() -> None:
    with mock.patch("PIL.ImageShow.show", return_value=True) as viewer:
        known().show()
    assert viewer.call_args.args[0].size == (80, 60)
    with mock.patch("PIL.ImageShow.show", return_value=False), pytest.raises(RuntimeError, match="save"):
        known().show()
