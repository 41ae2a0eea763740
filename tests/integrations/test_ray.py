"""The actor for Ray Data, called as Ray Data calls it: with a batch of columns. No cluster is needed for that."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from detpipe.datasets.image_file import read_image
from detpipe.integrations.ray import DetectorActor, results_of
from detpipe.runs.detector import Detector
from detpipe.structures import Detections, LeftOut
from tests import drawn

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three images, of which the second is cut short and the third has a name that is not UTF-8."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / "a.jpg", folder / "b.jpg", folder / os.fsdecode(b"\xff.jpg")]
    for number, path in enumerate(paths):
        drawn.write_jpeg(path, drawn.draw(50 + number)[0])
    paths[1].write_bytes(paths[1].read_bytes()[:900])
    return paths


def test_rows_are_the_images(finished_run: Path, files: list[Path]) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    expected = list(detector.predict_many(map(detector.with_regions, (files[0], files[2]))))
    actor = DetectorActor(str(finished_run), device="cpu")
    names = np.array([os.fsencode(path) for path in files], dtype=object)
    table = actor({"path": names, "number": np.arange(3), "place": np.zeros((3, 2))})
    assert table.column_names == ["path", "number", "place", "boxes", "scores", "labels", "classes", "unreadable"]
    assert table["number"].to_pylist() == [0, 1, 2]
    assert table["place"].to_pylist() == [[0, 0]] * 3
    assert table["boxes"].to_pylist() == [expected[0].boxes.tolist(), [], expected[1].boxes.tolist()]
    assert len(expected[0]) > 0
    assert table["classes"][0].as_py() == [detector.classes[label - 1] for label in expected[0].labels]
    assert [one is None for one in table["unreadable"].to_pylist()] == [True, False, True]

    paths, results = zip(*results_of(table), strict=True)
    assert list(paths) == [str(path) for path in files]
    assert isinstance(results[1], LeftOut)
    assert results[1].path == str(files[1])
    for one, other in zip((results[0], results[2]), expected, strict=True):
        assert isinstance(one, Detections)
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))

    pixels = np.empty(1, dtype=object)
    pixels[0] = read_image(files[0])
    (row,) = actor({"image": pixels, "path": names[1:2]}).to_pylist()  # the pixels are used, and do not come back
    assert row["boxes"] == expected[0].boxes.tolist()
    assert set(row) == {"path", "boxes", "scores", "labels", "classes", "unreadable"}


def test_no_images_and_no_column(finished_run: Path) -> None:
    actor = DetectorActor(str(finished_run), device="cpu")
    table = actor({"path": np.zeros(0, dtype=object)})
    assert len(table) == 0
    assert list(results_of(table)) == []
    with pytest.raises(ValueError, match=r"path.*image.*file"):
        actor({"file": np.zeros(1, dtype=object)})
