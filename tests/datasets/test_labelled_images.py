"""Lists as convert_imageset reads them, and folders by class."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.labelled_images import (
    ImageListError,
    LabelledImage,
    label_gaps,
    read_class_folders,
    read_class_names,
    read_image_list,
)
from detpipe.storage.input_file import InputFileError


def listed(tmp_path: Path, text: str | bytes, classes: list[str] | None = None) -> list[tuple[str, int]]:
    file = tmp_path / "list.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(one.name, one.label) for one in read_image_list(file, tmp_path, classes).images]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg 0\nsub/b.png 12\n", [("a.jpg", 0), ("sub/b.png", 12)]),
        ("a photo of 2 cats.jpg 7\n", [("a photo of 2 cats.jpg", 7)]),
        ("a.jpg\t3\r\nb.jpg  4 \r\n\r\n", [("a.jpg", 3), ("b.jpg", 4)]),
        ("a.jpg\n3\nb c.jpg\n4\n5 6\n7\n8", [("a.jpg", 3), ("b c.jpg", 4), ("5", 6), ("7", 8)]),
        ("a.jpg 3", [("a.jpg", 3)]),
        ("é.jpg 1\n", [("é.jpg", 1)]),
        (" \n\n", []),
        (b"\xef\xbb\xbfa.jpg 3\r\n", [("a.jpg", 3)]),
        ("a.jpg 3\n\u732b.jpg 4\n".encode("utf-16"), [("a.jpg", 3), ("\u732b.jpg", 4)]),
        ("/a.jpg 3\n", [("/a.jpg", 3)]),
    ],
)
def test_lists_by_hand(tmp_path: Path, text: str | bytes, expected: list[tuple[str, int]]) -> None:
    assert listed(tmp_path, text) == expected


def test_a_name_that_is_no_text_is_the_file_systems(tmp_path: Path) -> None:
    [(name, label)] = listed(tmp_path, b"\xff\xfe.jpg 1\n")
    assert label == 1
    (tmp_path / name).write_bytes(b"x")
    assert (tmp_path / name).read_bytes() == b"x"


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg -1", "a.jpg 1.5", "a.jpg x", "7", "a.jpg 9999999999", "a.jpg ٣"])
def test_another_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(ImageListError, match=r"list\.txt:2: expected a path"):
        listed(tmp_path, f"a.jpg 1\n{line}\nb.jpg 1\n")


def test_a_label_beyond_the_classes_is_named(tmp_path: Path) -> None:
    assert listed(tmp_path, "a.jpg 1\n", ["x", "y"]) == [("a.jpg", 1)]
    with pytest.raises(ImageListError, match=r"list\.txt:1: expected a label below the number of classes, 2, got 2"):
        listed(tmp_path, "a.jpg 2\n", ["x", "y"])


def test_names_of_other_machines_and_from_the_root_as_caffe_joins_them(tmp_path: Path) -> None:
    for name in ("sub/a.jpg", "b.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    file = tmp_path / "list.txt"
    file.write_text("/sub/a.jpg 0\nC:\\set\\b.jpg 1\nsub\\a 2\nhttps://site.org/b.jpg?x=1 3\n")
    images = read_image_list(file, tmp_path, None)
    assert [images.path(one) for one in images.images] == [
        tmp_path / name for name in ("sub/a.jpg", "b.JPG", "sub/a.jpg", "b.JPG")
    ]
    assert images.images[0].name == "/sub/a.jpg"  # Caffe's key


def test_what_has_no_file_has_a_fault(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    file = tmp_path / "list.txt"
    file.write_text(f"../secret.jpg 0\n{tmp_path}/secret.jpg 1\nnone.jpg 2\n")
    found = read_image_list(file, tmp_path / "root", None).images
    assert ["outside=true" in str(one.fault) for one in found] == [True, True, False]
    assert "list.txt:3: no image file 'none.jpg'" in str(found[2].fault)
    found = read_image_list(file, tmp_path / "root", None, outside=True).images
    assert [one.file is not None for one in found] == [True, True, False]
    with pytest.raises(FileNotFoundError, match="expected the folder of the images"):
        read_image_list(file, tmp_path / "none", None)


def test_a_pipe_in_place_of_a_list_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")
    for read in (lambda file: read_image_list(file, tmp_path, None), read_class_names):
        with pytest.raises(InputFileError, match="a named pipe"):
            read(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0, 1, 2], ""),
        ([7, 999], ""),
        (list(range(20_000)), ""),
        ([], ""),
        ([5, 7, 10**9, 5], "3 labels up to 1,000,000,000: number them from 0"),
        ([20241010, 20241011], "2 labels up to 20,241,011: number them from 0"),
    ],
)
def test_labels_that_are_ids(labels: list[int], text: str) -> None:
    assert label_gaps(labels) == text


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image_list(tmp_path / "none.txt", tmp_path, None)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        images = listed(folder, data)
    except (ImageListError, InputFileError):
        return
    assert all(name and label >= 0 for name, label in images)


def test_folders_by_class(tmp_path: Path) -> None:
    for name in ("n2/b.JPEG", "n2/a.jpg", "n1/deep/c.png", "n1/notes.txt", ".git/d.jpg", "n1/.hidden.jpg", "top.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "n3").mkdir()
    found = read_class_folders(tmp_path)
    assert found.classes == ("n1", "n2", "n3")
    assert found.images == (
        LabelledImage("n1/deep/c.png", 0),
        LabelledImage("n2/a.jpg", 1),
        LabelledImage("n2/b.JPEG", 1),
    )
    assert found.path(found.images[1]) == tmp_path / "n2/a.jpg"


def test_folders_of_splits_are_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/cat/a.jpg", "val/cat/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ImageListError, match=r"folders of splits \(train, val\).*root=.*train"):
        read_class_folders(tmp_path)
    (tmp_path / "bus").mkdir()
    assert read_class_folders(tmp_path).classes == ("bus", "train", "val")
    assert "train, val are taken for classes" in caplog.text
    caplog.clear()
    (tmp_path / "val").rename(tmp_path / "car")
    assert read_class_folders(tmp_path).classes == ("bus", "car", "train")  # a railway
    assert caplog.text == ""


def test_what_is_passed_over_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("set/cat/a.gif", "set/cat/b.heic", "elsewhere/c.jpg", "set/__MACOSX/cat/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    assert [one.name for one in read_class_folders(tmp_path / "set").images] == ["cat/a.gif"]
    assert "passed over 1 (b.heic): .heic is not read" in caplog.text
    assert "outside=true" in caplog.text
    assert read_class_folders(tmp_path / "set", outside=True).classes == ("cat", "dog")


def test_no_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give list=FILE"):
        read_class_folders(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder of classes"):
        read_class_folders(tmp_path / "none")


def test_class_names(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    assert read_class_names(file) == ("n01440764 tench, Tinca tinca", "n01443537 goldfish")
    file.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_class_names(file) == ("cat", "dog")
    file.write_text("cat\ndog\n", encoding="utf-16")
    assert read_class_names(file) == ("cat", "dog")
    file.write_bytes(b"")
    with pytest.raises(InputFileError, match="an empty file"):
        read_class_names(file)
    for text in ("a\n\nb\n", "a\na\n"):
        file.write_text(text)
        with pytest.raises(ImageListError, match="expected one class name per line"):
            read_class_names(file)
