"""image_list: images and nothing else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import Split, TooManyBadError


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(cv2.imencode(Path(name).suffix.lower(), np.zeros((20, 30, 3), np.uint8))[1].tobytes())
    return root


def ids(root: Path) -> list[object]:
    return [record.image_id for record in ImageFolderSource(root=str(root)).load(Split.test).records]


def test_images_of_all_folders_by_stem(tmp_path: Path) -> None:
    folder_of(tmp_path, "b.jpg", "sub/a.PNG", ".cache/hidden.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    dataset = ImageFolderSource(root=str(tmp_path), classes=["cat"]).load(Split.test)
    assert [record.image_id for record in dataset.records] == ["b", "a"]
    assert dataset.ground_truth is None
    assert (dataset.classes, dataset.category_ids) == (("cat",), (1,))
    assert dataset.records[0].image_size == (20, 30)


def test_equal_stems_get_paths(tmp_path: Path) -> None:
    assert ids(folder_of(tmp_path / "1", "x/a.jpg", "y/a.jpg", "b.jpg")) == ["b", "x/a", "y/a"]
    assert ids(folder_of(tmp_path / "2", "a.jpg", "a.png")) == ["a.jpg", "a.png"]


def test_a_single_file(tmp_path: Path) -> None:
    assert ids(folder_of(tmp_path, "a.jpg") / "a.jpg") == ["a"]
    (tmp_path / "b.txt").write_text("no image")
    with pytest.raises(TooManyBadError, match=r"b\.txt: expected an image file"):
        ids(tmp_path / "b.txt")


def test_broken_images_are_listed(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    dataset = ImageFolderSource(root=str(tmp_path), max_bad=0.5).load(Split.test)
    assert len(dataset) == 1
    assert dataset.bad[0].path == str(tmp_path / "b.jpg")


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an image or a folder of images"):
        ids(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"expected images \(\.jpg"):
        ids(tmp_path)
    with pytest.raises(ValueError, match="expected a train split"):
        ImageFolderSource(root=str(tmp_path)).load(Split.train)


def test_every_suffix_is_found_and_others_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jfif", "b.jpe", "c.ppm", "d.gif", "e.jp2", "f.heic", "._a.jpg", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    source = ImageFolderSource(root=str(tmp_path))
    assert [entry.image_id for entry in source.entries(Split.test)] == ["a", "b", "c", "d", "e"]
    assert [(one.kind, ".heic is not read" in one.detail) for one in source.strays()] == [("passed_over", True)]
    assert "passed over 1 (f.heic)" in caplog.text
    for path in tmp_path.iterdir():
        if path.name != "f.heic":
            path.unlink()
    with pytest.raises(FileNotFoundError, match=r"got none; passed over 1 \(f\.heic\): \.heic is not read"):
        ids(tmp_path)


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    folder_of(tmp_path / "other", "b.jpg")
    root = folder_of(tmp_path / "photos", "a.jpg")
    (root / "b.jpg").symlink_to(tmp_path / "other" / "b.jpg")
    assert ids(root) == ["a"]
    dataset = ImageFolderSource(root=str(root), outside=True).load(Split.test)
    assert [record.image_id for record in dataset.records] == ["a", "b"]
    assert ids(root / "b.jpg") == ["b"]  # named by the user
