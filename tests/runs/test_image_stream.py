"""Which images a folder, a pattern or a list of paths gives, and their detections one by one."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from detpipe import Detector, ImageDetections
from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.runs.image_stream import ImageStream, image_paths, is_many
from tests import drawn


@pytest.fixture
def photos(tmp_path: Path, voc_root: Path) -> Path:
    """A folder with two photos, one of them in a subfolder, a broken one, and files that are no images."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shutil.copy(voc_root / "JPEGImages" / f"{drawn.TEST[0]}.jpg", folder / "a.jpg")
    shutil.copy(voc_root / "JPEGImages" / f"{drawn.TEST[1]}.jpg", folder / "more" / "c.jpg")
    (folder / "b.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("-")
    (folder / ".hidden.jpg").write_bytes(b"-")
    return folder


def test_a_folder_a_pattern_and_paths(photos: Path) -> None:
    assert [path.name for path in image_paths(photos)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [path.name for path in image_paths(f"{photos}/*")] == ["a.jpg", "b.jpg"]
    assert [path.name for path in image_paths(f"{photos}/**/*.jpg")] == ["a.jpg", "b.jpg", "c.jpg"]
    assert image_paths([photos / "c.jpg", str(photos / "a.jpg")]) == (photos / "c.jpg", photos / "a.jpg")
    assert image_paths(photos / "a.jpg") == (photos / "a.jpg",)
    assert image_paths([]) == ()


def test_only_folders_and_patterns_are_many(photos: Path) -> None:
    (photos / "d[1].jpg").write_bytes(b"-")
    assert is_many(photos)
    assert is_many(f"{photos}/*.jpg")
    assert not is_many(photos / "a.jpg")
    assert not is_many(photos / "d[1].jpg")
    assert not is_many(photos / "none.jpg")


@pytest.mark.parametrize("name", ["empty", "none*.jpg", "none"])
def test_no_images_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="images: expected"):
        image_paths(tmp_path / name)


def test_the_images_of_a_folder_one_by_one(finished_run: Path, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    stream = detector.predict(photos)
    assert isinstance(stream, ImageStream)
    assert len(stream) == 3
    with caplog.at_level(logging.WARNING):
        found = list(stream)
    assert [one.path for one in found] == [photos / "a.jpg", photos / "more" / "c.jpg"]
    assert [Path(one.path).name for one in stream.left_out] == ["b.jpg"]
    assert "1 of 3" in caplog.text
    for one in found:
        alone = detector(one.path)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-3)
    assert len(list(stream)) == 2  # once more
    assert list(detector.stream([])) == []


def test_one_image_with_its_classes(finished_run: Path, photos: Path) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    pixels = read_image(photos / "a.jpg")
    found = detector.predict(pixels)
    assert isinstance(found, ImageDetections)
    assert found.source is pixels
    assert found.classes == detector.classes == detector.spec.classes
    assert found.floor == detector.best_threshold
    middle = float(np.median(found.scores))
    few = detector(photos / "a.jpg", threshold=middle)
    np.testing.assert_array_equal(few.scores, found.scores[found.scores >= middle])
    assert few.path == photos / "a.jpg"
    with pytest.raises(BrokenImageError):
        detector.predict(photos / "b.jpg")
    with pytest.raises(ValueError, match="proposals"):
        detector.predict(photos, [[0, 0, 5, 5]])
    assert all(one.floor >= 0.9 for one in detector.predict_batch([pixels], threshold=0.9))
