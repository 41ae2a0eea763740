"""Lists as convert_imageset reads them, and folders by class."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.labelled_images import (
    ImageListError,
    LabelledImage,
    read_class_folders,
    read_class_names,
    read_image_list,
)


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
        ("", []),
        (" \n\n", []),
    ],
)
def test_lists_by_hand(tmp_path: Path, text: str, expected: list[tuple[str, int]]) -> None:
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


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image_list(tmp_path / "none.txt", tmp_path, None)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        images = listed(folder, data)
    except ImageListError:
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


def test_no_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give list=FILE"):
        read_class_folders(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder of classes"):
        read_class_folders(tmp_path / "none")


def test_class_names(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    assert read_class_names(file) == ("n01440764 tench, Tinca tinca", "n01443537 goldfish")
    for text in ("", "a\n\nb\n", "a\na\n"):
        file.write_text(text)
        with pytest.raises(ImageListError, match="expected one class name per line"):
            read_class_names(file)
