"""Corrected copies of CSV data sets: changed, removed and added rows; all other lines stay, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from detpipe.datasets.corrected_copy import CopiedImages, write_corrected_copy
from detpipe.datasets.csv_boxes import CsvSource
from detpipe.datasets.object_edits import NewImage, ObjectEdit
from detpipe.datasets.open_images import OpenImagesSource
from detpipe.datasets.source import Split
from detpipe.datasets.table_source import TableSource
from tests.datasets.other_formats import image

ROWS = (
    "class,filename,xmin,ymin,xmax,ymax,width,height,note\n"
    "cat,a.jpg,1,2,9.50,8,40,20,first\n"
    "dog,b.jpg,3,3,9,9,40,20,\n"
    '"cat, small",a.jpg,4,4,20,20,40,20,"two\nlines"\n'
    "\n"
    ",c.jpg,,,,,40,20,nothing\n"
)


def edited(source: TableSource, out: Path, edits: dict[str, Sequence[ObjectEdit]], *new: NewImage) -> TableSource:
    """A copy with the edits of images by their ids."""
    of = {
        (one.origin, one.image_id): edits[str(one.image_id)]
        for one in source.entries(Split.train)
        if one.image_id in edits
    }
    assert len(of) == len(edits)
    copy = write_corrected_copy(source, out, of, CopiedImages.link, new)
    assert isinstance(copy, TableSource)
    return copy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 40 x 20 pixels and boxes.csv."""
    for name in "abc":
        image(tmp_path / "set" / f"{name}.jpg")
    (tmp_path / "set" / "boxes.csv").write_text(ROWS)
    return tmp_path / "set"


def test_without_edits_the_bytes_stay(folder: Path, tmp_path: Path) -> None:
    for number, data in enumerate(
        (ROWS.encode(), b"\xef\xbb\xbf" + ROWS.replace("\n", "\r\n").encode(), b"a.jpg,,,,,")
    ):
        (folder / "boxes.csv").write_bytes(data)
        source = CsvSource(root=str(folder), test_share=0.0)
        copy = edited(source, tmp_path / f"out{number}", {})
        assert (tmp_path / f"out{number}" / "boxes.csv").read_bytes() == data
        assert [one.objects for one in copy.entries(Split.train)] == [
            one.objects for one in source.entries(Split.train)
        ]


def test_rows_are_changed_removed_and_added(folder: Path, tmp_path: Path) -> None:
    """Whole numbers have no decimals; a removed image keeps a row, and one without objects gets its first."""
    edits = {
        "a": [ObjectEdit(index=1, name="dog", box=(4, 4, 20.25, 20)), ObjectEdit(name="cat", box=(0, 0, 5, 5))],
        "b": [ObjectEdit(index=0, is_removed=True)],
        "c": [ObjectEdit(name="cat", box=(1, 1, 3, 3))],
    }
    new = NewImage(path=image(tmp_path / "x.jpg"), name="new", image_size=(20, 40), objects=(edits["c"][0],))
    copy = edited(CsvSource(root=str(folder), test_share=0.0), tmp_path / "out", edits, new)
    assert (tmp_path / "out" / "boxes.csv").read_text() == (
        "class,filename,xmin,ymin,xmax,ymax,width,height,note\n"
        "cat,a.jpg,1,2,9.50,8,40,20,first\n"
        ",b.jpg,,,,,40,20,\n"
        'dog,a.jpg,4,4,20.25,20,40,20,"two\nlines"\n'
        "cat,a.jpg,0,0,5,5,40,20,\n"
        "\n"
        "cat,c.jpg,1,1,3,3,40,20,\n"
        "cat,new.jpg,1,1,3,3,40,20,\n"
    )
    assert (folder / "boxes.csv").read_text() == ROWS
    found = {one.image_id: [each.name for each in one.objects] for one in copy.entries(Split.train)}
    assert found == {"a": ["cat", "dog", "cat"], "b": [], "c": ["cat"], "new": ["cat"]}
    assert all((tmp_path / "out" / f"{name}.jpg").is_file() for name in ("a", "b", "c", "new"))


def test_a_new_image_without_objects_gets_a_row(folder: Path, tmp_path: Path) -> None:
    new = NewImage(path=image(tmp_path / "x.jpg"), name="new", image_size=(20, 40), objects=())
    copy = edited(CsvSource(root=str(folder), test_share=0.0), tmp_path / "out", {}, new)
    assert (tmp_path / "out" / "boxes.csv").read_text() == ROWS.rstrip("\n") + "\n,new.jpg,,,,,40,20,\n"
    assert [one.objects for one in copy.entries(Split.train) if one.image_id == "new"] == [()]


def test_a_file_without_header_and_without_a_last_line_break(folder: Path, tmp_path: Path) -> None:
    (folder / "boxes.csv").write_text("a.jpg;1;2;9,5;8;café", encoding="cp1252")
    source = CsvSource(root=str(folder), test_share=0.0, encoding="cp1252")
    edited(source, tmp_path / "out", {"a": [ObjectEdit(name="thé", box=(0, 0, 5, 5))]})
    assert (tmp_path / "out" / "boxes.csv").read_text("cp1252") == "a.jpg;1;2;9,5;8;café\na.jpg;0;0;5;5;thé\n"
    with pytest.raises(ValueError, match="'猫'; save the file in UTF-8"):
        edited(source, tmp_path / "cat", {"a": [ObjectEdit(name="猫", box=(0, 0, 5, 5))]})


def test_two_names_of_one_image_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "boxes.csv").write_text("a.jpg,1,2,9,8,cat\n./a.jpg,1,2,9,8,dog\n")
    source = CsvSource(root=str(folder), test_share=0.0)
    with pytest.raises(ValueError, match=r"boxes\.csv: .*detpipe convert"):
        edited(source, tmp_path / "out", {"a": [ObjectEdit(index=0, is_removed=True)]})


def test_shares_and_codes_of_open_images(tmp_path: Path) -> None:
    """With splits in folders, the names of classes beside, and images in a folder of their own."""
    for name in "ab":
        image(tmp_path / "images" / f"{name}.jpg")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
    rows = "a,xclick,/m/1,1,0.25,0.75,0.5,1,1\na,xclick,/m/2,1,0,0.5,0,0.5,0\n"
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv/train-bbox.csv").write_text(header + rows)
    (tmp_path / "csv/test-bbox.csv").write_text(header + rows.replace("a,x", "b,x"))
    (tmp_path / "csv/class-descriptions.csv").write_text("/m/1,cat\n/m/2,dog\n")
    source = OpenImagesSource(root=str(tmp_path / "csv"), images_root=str(tmp_path / "images"))
    new = NewImage(
        path=image(tmp_path / "x.jpg"),
        name="new",
        image_size=(20, 40),
        objects=(ObjectEdit(name="dog", box=(0, 0, 20, 20)),),
    )
    copy = edited(source, tmp_path / "out", {"a": [ObjectEdit(index=0, name="dog", box=(10, 5, 20, 10))]}, new)
    changed = "a,xclick,/m/2,1,0.25,0.5,0.25,0.5,1\na,xclick,/m/2,1,0,0.5,0,0.5,0\nnew,,/m/2,,0.0,0.5,0.0,1.0,\n"
    assert (tmp_path / "out/csv/train-bbox.csv").read_text() == header + changed
    assert (tmp_path / "out/csv/test-bbox.csv").read_text() == (tmp_path / "csv/test-bbox.csv").read_text()
    assert [one.name for entry in copy.entries(Split.train) for one in entry.objects] == ["dog"] * 3
    assert copy.known_classes() == ["cat", "dog"]
    gone = [ObjectEdit(index=index, is_removed=True) for index in (0, 1)]
    with pytest.raises(ValueError, match=r"a\.jpg.*detpipe convert"):
        edited(source, tmp_path / "gone", {"a": gone})
    with pytest.raises(ValueError, match=r"x\.jpg.*detpipe convert"):
        edited(source, tmp_path / "empty", {}, replace(new, objects=()))
