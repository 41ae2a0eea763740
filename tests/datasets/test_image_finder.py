"""image_finder: names as other machines write them, ambiguity, and what lies outside."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets import image_finder
from detpipe.datasets.image_finder import (
    AmbiguousImageError,
    ImageFinder,
    ImageNotFoundError,
    OutsideImageError,
    PathIndex,
    hash_name,
)

UMLAUT = unicodedata.normalize("NFC", "übung.jpg")
DECOMPOSED = unicodedata.normalize("NFD", UMLAUT)


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def found(root: Path, name: str, **settings: object) -> str:
    return os.path.relpath(ImageFinder(root, **settings).find(name), root)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", " a.jpg\n"),
        ("a.jpg", "./a.jpg"),
        ("a.jpg", "images\\a.jpg"),
        ("cats/a.jpg", "cats\\a.jpg"),
        ("a.jpg", "C:\\photos\\new\\a.jpg"),
        ("cats/a.jpg", "D:/photos/cats/a.jpg"),
        ("a.jpg", "/home/x/a.jpg"),
        ("a.jpg", "\\\\server\\share\\a.jpg"),
        ("a.jpg", "file:///home/x/a.jpg"),
        ("my photo.jpg", "file:///C:/my%20photo.jpg"),
        ("a.jpg", "https://site.org/x/a.jpg?width=200&v=3#top"),
        ("a b.jpg", "http://site.org/a%20b.jpg"),
        ("a b.jpg", "a%20b.jpg"),
        ("a.jpg", "s3://bucket/folder/a.jpg"),
        ("a.jpg", "AmlDatastore://store/a.jpg"),
        ("a.jpg", "/data/local-files/?d=folder/a.jpg"),
        ("a.jpg", "images\\0123abcd-a.jpg"),
        ("a.jpg", "images/0123abcd__a.jpg"),
        ("0123abcd-a.jpg", "images/0123abcd-a.jpg"),
        ("a.jpg", "A.JPG"),
        ("A.JPG", "a.jpg"),
        ("Cats/a.jpg", "cats/A.jpg"),
        ("a.jpg", "a"),
        ("a.jfif", "a"),
        ("a.png", "a.jpg"),
        ("scene.1.jpg", "scene.1"),
        (UMLAUT, DECOMPOSED),
        (DECOMPOSED, UMLAUT),
        ("sub/deep/a.jpg", "a.jpg"),
        ("images/day 1/a.jpg", "day 1/a.jpg"),
        ("images/day 1/a.png", "C:\\all\\Day 1\\a.jpg"),
        ("a%20b.jpg", "a%20b.jpg"),
        ("a?b.jpg", "a?b.jpg"),
        ("a\\b.jpg", "a\\b.jpg"),
        ("x/a.jpg", "../x/a.jpg"),
    ],
)
def test_names_of_other_machines(tmp_path: Path, file: str, name: str) -> None:
    assert found(folder_of(tmp_path / "images", file, "other.jpg"), name) == file


@pytest.mark.parametrize(
    ("files", "name", "best"),
    [
        (["a%20b.jpg", "a b.jpg"], "a%20b.jpg", "a%20b.jpg"),
        (["a.jpg", "A.jpg"], "A.jpg", "A.jpg"),
        (["a.jpg", "a.png"], "a.PNG", "a.png"),
        (["cats/1.jpg", "dogs/1.jpg"], "C:\\all\\dogs\\1.jpg", "dogs/1.jpg"),
        (["cats/1.jpg", "1.jpg"], "1.jpg", "1.jpg"),
        (["x/cats/1.jpg", "cats/1.jpg"], "cats/1.jpg", "cats/1.jpg"),
        (["x/cats/1.jpg", "y/dogs/1.jpg", "1.jpg"], "dogs/1.jpg", "y/dogs/1.jpg"),
        (["scene.jpg", "scene.1.jpg", "scene.2.jpg"], "scene.1", "scene.1.jpg"),
    ],
)
def test_the_nearest_of_several(tmp_path: Path, files: list[str], name: str, best: str) -> None:
    assert found(folder_of(tmp_path, *files), name) == best


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["cats/1.jpg", "dogs/1.jpg"], "1.jpg"),
        (["x/cats/1.jpg", "y/cats/1.jpg"], "cats/1.jpg"),
        (["a.jpg", "a.png"], "a"),
        (["a.JPG", "a.Jpg"], "a.jpg"),
        ([UMLAUT, DECOMPOSED], "ÜBUNG.jpg"),
    ],
)
def test_several_that_match_equally_well_are_an_error(tmp_path: Path, files: list[str], name: str) -> None:
    with pytest.raises(AmbiguousImageError, match=r"may be any of 2 images: .*write the path"):
        found(folder_of(tmp_path, *files), name)


@pytest.mark.parametrize(
    "name", ["b.jpg", "", ".", "..", "/", "a\0.jpg", "x" * 5000, "\ud800.jpg", "cats", "dogs/a.jpg"]
)
def test_no_image(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageNotFoundError, match="no image file"):
        found(folder_of(tmp_path, "cats/a.jpg", "dogs/1.jpg"), name)


def test_another_format_of_this_name_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match=r"a\.heic is not read: .*convert"):
        found(folder_of(tmp_path, "a.heic"), "a.jpg")


def test_names_that_are_relative_to_the_annotation(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "images", "a.jpg")
    beside = tmp_path / "annotations"
    beside.mkdir()
    assert found(images, "../images/a.jpg", beside=beside) == "a.jpg"
    assert found(images, "images/a.jpg", beside=tmp_path) == "a.jpg"


def test_files_outside_need_the_setting(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "images", "a.jpg")
    other = folder_of(tmp_path / "other", "b.jpg") / "b.jpg"
    (images / "link.jpg").symlink_to(other)
    (images / "folder").symlink_to(other.parent)
    for name in ("../other/b.jpg", str(other), f"file://{other}", "link.jpg", "folder/b.jpg"):
        with pytest.raises(OutsideImageError, match=r"dataset\.outside=true"):
            found(images, name)
        assert ImageFinder(images, outside=True).find(name).samefile(other)
    with pytest.raises(OutsideImageError, match=r"give outside=true"):
        found(images, str(other), setting="outside")


def test_a_name_in_the_image_folder_is_never_taken_for_another_file_that_is_outside(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "test", "1.jpg")
    folder_of(tmp_path / "train", "1.jpg")
    with pytest.raises(OutsideImageError):
        found(images, "../train/1.jpg")


def test_a_name_from_root_is_joined_to_the_folder_as_caffe_does(tmp_path: Path) -> None:
    assert found(folder_of(tmp_path, "x/a.jpg"), "/x/a.jpg") == "x/a.jpg"


def test_links_of_the_user_are_followed(tmp_path: Path) -> None:
    disk = folder_of(tmp_path / "disk", "sub/a.jpg")
    (tmp_path / "images").symlink_to(disk)
    assert found(tmp_path / "images", "sub/a.jpg") == "sub/a.jpg"
    more = folder_of(tmp_path / "more", "b.jpg")
    images = folder_of(tmp_path / "plain", "a.jpg")
    (images / "b.jpg").symlink_to(more / "b.jpg")
    assert found(images, "b.jpg", also=[more]) == "b.jpg"


def test_folders_may_only_be_dropped_if_they_are_not_here() -> None:
    index = PathIndex([("val/1.jpg", "val"), ("2.jpg", "two")])
    assert index.find(["train", "2.jpg"]) == ["two"]
    assert index.find(["val", "2.jpg"]) == []
    assert index.find(["train", "1.jpg"]) == []


@given(st.text(max_size=40))
def test_any_text_is_a_file_inside_or_an_error(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    images = folder_of(tmp_path_factory.getbasetemp() / "any", "a.jpg", "x/b.png")
    try:
        path = ImageFinder(images).find(name)
    except ImageNotFoundError:
        return
    assert path.resolve().is_relative_to(images.resolve())


@pytest.mark.parametrize("name", ["x\\a.jpg", "./x/a.jpg", "x/a.png", "x/a"])
def test_the_name_for_the_hash_is_the_same_for_each_spelling(name: str) -> None:
    assert hash_name(name) == "x/a"


def test_many_wrong_names_search_the_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    count = image_finder.suffix_of
    monkeypatch.setattr(image_finder, "suffix_of", lambda name: calls.append(name) or count(name))
    finder = ImageFinder(folder_of(tmp_path, *(f"{number}.jpg" for number in range(20))))
    for number in range(30):
        with pytest.raises(ImageNotFoundError):
            finder.find(f"none {number}.jpg")
    assert len(calls) == 20
