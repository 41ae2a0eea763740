"""Tables of image and class: columns in any order, header or none, other delimiters, Timelapse's folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from detpipe.datasets.image_label_table import ImageLabel, ImageLabelError, read_image_labels
from detpipe.datasets.text_file import TextFileError
from detpipe.storage.input_file import InputFileError

EXPECTED = [ImageLabel("a/1.jpg", "red fox"), ImageLabel("a/2.jpg", "")]


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "file,class\na/1.jpg,red fox\na/2.jpg,\n",
        "\ufeffClass,File Name\r\n red fox , a/1.jpg \r\n\r\n,a/2.jpg\r\n",
        "a/1.jpg,red fox\na/2.jpg,\n",
        "red fox,a/1.jpg\n,a/2.jpg\n",
        "n;species;image_path;date\n1;red fox;a/1.jpg;3,5\n2;;a/2.jpg;\n",
        'file\tclass\n"a/1.jpg"\t"red fox"\na/2.jpg\t\n',
        "File,RelativePath,DeleteFlag,Species\n1.jpg,a,false,red fox\na/2.jpg,,false,\n",
        "file,class\na/1.jpg,red fox\na/2.jpg,\n".encode("utf-16"),
    ],
)
def test_all_spellings_of_one_table(tmp_path: Path, text: str | bytes) -> None:
    assert read_image_labels(table(tmp_path, text)) == EXPECTED


def test_named_columns_win(tmp_path: Path) -> None:
    path = table(tmp_path, "File,Photo,Species,Answer\nx.jpg,a/1.jpg,cat,red fox\nx.jpg,a/2.jpg,cat,\n")
    assert read_image_labels(path, "photo", "Answer") == EXPECTED
    assert read_image_labels(table(tmp_path, "file,class\n")) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a,b,c\n1,2,3\n", "header"),
        ("a.jpg,b.jpg\n", "header"),
        ("file,name\na.jpg,cat\n", r"dataset\.class_column"),
        ("species,where\ncat,a.jpg\n", r"dataset\.file_column"),
        ("file,class\na.jpg\n", "labels.csv:2: .*columns"),
        ("file,class\n,cat\n", "labels.csv:2: .*empty"),
        ("\n\n", "no rows"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ImageLabelError, match=named) as caught:
        read_image_labels(table(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageLabelError, match="photo"):
        read_image_labels(table(tmp_path, "a.jpg,cat\n"), "photo")


def test_no_text(tmp_path: Path) -> None:
    for content in (b"file,class\n\xff\xff,cat\n", b'file,class\na.jpg,"' + b"x" * 200_000 + b'"\n'):
        with pytest.raises(TextFileError, match=r"labels\.csv"):
            read_image_labels(table(tmp_path, content))
    with pytest.raises(InputFileError, match="empty file"):
        read_image_labels(table(tmp_path, b""))
