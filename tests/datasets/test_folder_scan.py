"""folder_scan: what is an image, what is hidden, and which links are followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from detpipe.datasets.folder_scan import image_files, is_hidden, scan, without_suffix


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def found(root: Path, **settings: bool) -> list[str]:
    return [path.relative_to(root).as_posix() for path in scan(root, **settings).images]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".jfif", ".jpe", ".ppm", ".pgm", ".gif", ".jp2", ".tiff", ".webp"])
def test_every_suffix_that_is_read_is_found(tmp_path: Path, suffix: str) -> None:
    assert found(files(tmp_path, f"a{suffix}", "a.txt")) == [f"a{suffix}"]


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "._a.jpg", ".ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg", "Thumbs.db", "@eaDir/a.jpg")
    assert [path.name for path in scan(tmp_path).files] == ["a.jpg"]
    assert is_hidden("thumbs.DB")
    assert not is_hidden("a.b")


def test_pictures_that_are_not_read_are_counted_with_the_reason(tmp_path: Path) -> None:
    text = scan(files(tmp_path, "a.heic", "b.HEIC", "c.avif", "d.jpg")).passed_over_text()
    assert "passed over 2 (a.heic, ...): .heic is not read: " in text
    assert "passed over 1 (c.avif): .avif is not read: " in text
    assert "convert it" in text
    assert scan(files(tmp_path / "sound", "a.jpg", "notes.txt")).passed_over_text() == ""


def test_only_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    files(tmp_path / "set", "in/a.jpg")
    files(tmp_path / "elsewhere", "b.jpg")
    (tmp_path / "set" / "inner").symlink_to("in")
    (tmp_path / "set" / "c.jpg").symlink_to("in/a.jpg")
    (tmp_path / "set" / "b.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "set" / "out").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "set") == ["c.jpg", "in/a.jpg"]  # the folder behind `inner` is searched once
    assert "dataset.outside=true" in scan(tmp_path / "set").passed_over_text()
    assert found(tmp_path / "set", outside=True) == ["b.jpg", "c.jpg", "in/a.jpg", "out/b.jpg"]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    files(tmp_path / "disk", "a.jpg")
    (tmp_path / "set").symlink_to("disk")
    assert found(tmp_path / "set") == ["a.jpg"]


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    files(tmp_path, "x/a.jpg")
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    assert found(tmp_path) == ["x/a.jpg"]
    assert found(tmp_path, outside=True) == ["x/a.jpg"]


def test_images_of_one_folder_only(tmp_path: Path) -> None:
    assert [path.name for path in image_files(files(tmp_path, "b.png", "a.gif", "sub/c.jpg", ".d.jpg"))] == [
        "a.gif",
        "b.png",
    ]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.jpg", "a"),
        ("x/.jpg", "x/.jpg"),
        ("x.jpg/a", "x.jpg/a"),
        ("a.", "a."),
        ("scene.1", "scene.1"),
        ("scene.1.JPG", "scene.1"),
        ("a.heic", "a"),
        ("", ""),
    ],
)
def test_only_the_suffix_of_a_picture_is_removed(name: str, stem: str) -> None:
    assert without_suffix(name) == stem


def test_a_link_in_a_circle_is_a_file_that_its_reader_names(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("a.jpg")
    (tmp_path / "b.jpg").touch()
    assert [path.name for path in scan(tmp_path, outside=True).files] == ["a.jpg", "b.jpg"]
