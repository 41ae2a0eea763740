"""csv: columns in any order, without a header, other separators and encodings, and wrong rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.check import check_source
from detpipe.datasets.csv_boxes import CsvFileError, CsvSource
from detpipe.datasets.entry import RawObject
from detpipe.datasets.source import Split
from tests.datasets.other_formats import image

CAT = RawObject("cat", (1.5, 2.0, 30.0, 15.0))


def read(root: Path, **settings: Any) -> dict[str, dict[Any, tuple[RawObject, ...]]]:
    source = CsvSource(root=str(root), **{"test_share": 0.0, **settings})
    for split in Split:
        if source.has(split):
            source.load(split)
    return {
        split.value: {entry.image_id: entry.objects for entry in source.entries(split)}
        for split in Split
        if source.has(split)
    }


@pytest.mark.parametrize(
    "content",
    [
        "filename,xmin,ymin,xmax,ymax,class\na.jpg,1.5,2,30,15,cat\n",
        "\nfilename,xmin,ymin,xmax,ymax,class\ra.jpg,1.5,2,30,15,cat\r",
        "class,ymax,xmax,ymin,xmin,filename,extra\ncat,15,30,2,1.5,a.jpg,x\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,20,cat,1.5,2,30,15\n",
        "a.jpg,1.5,2,30,15,cat\n",
        "a.jpg,1.5,2,30,15,cat,40,20\n",
        "/home/me/set/a.jpg,1.5,2,30,15,cat\r\n\r\n",
        "file;X1;Y1;X2;Y2;label\na.jpg;1,5;2;30;15;cat\n",
        "Image_Path\tX Min\tY Min\tX Max\tY Max\tClass Name\na.jpg\t1.5\t2\t30\t15\tcat\n",
        '"filename", "xmin", "ymin", "xmax", "ymax", "class"\n"a.jpg", 1.5, 2, 30, 15, "cat"\n',
        "file,class,score,x1,y1,x2,y2,shown\na.jpg,cat,0.9,1.5,2,30,15,1\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_forms_of_a_file(tmp_path: Path, content: str, encoding: str) -> None:
    image(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_bytes(content.encode(encoding))
    assert read(tmp_path / "labels.csv") == read(tmp_path) == {"train": {"a": (CAT,)}}


def test_a_folder_around_the_data_set(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("test", "b")):
        image(tmp_path / "outer" / "inner" / "images" / f"{name}.jpg")
        (tmp_path / "outer" / "inner" / f"{split}_labels.csv").write_text(f"images/{name}.jpg,1.5,2,30,15,cat\n")
    assert CsvSource.recognise(tmp_path / "outer") is not None
    assert read(tmp_path / "outer") == {"train": {"a": (CAT,)}, "test": {"b": (CAT,)}}


def test_the_order_of_makesense_is_another(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("cat,1,2,30,15,a.jpg,40,20\n")
    assert CsvSource.recognise(tmp_path) is None
    with pytest.raises(CsvFileError, match="boxes as x, y, width and height"):
        read(tmp_path / "labels.csv")


def test_images_without_objects_and_with_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "photos" / f"{name}.jpg")
    (tmp_path / "annotations.csv").write_text("photos/b.jpg,,,,,\na.jpg,1.5,2,30,15,cat\na.jpg,0,0,9,9,dog\n")
    (tmp_path / "classes.csv").write_text("cat,0\ndog,1\n")
    found = read(tmp_path)
    assert found == {"train": {"b": (), "a": (CAT, RawObject("dog", (0.0, 0.0, 9.0, 9.0)))}}
    assert CsvSource(root=str(tmp_path)).known_classes() == ["cat", "dog"]


def test_files_and_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        image(tmp_path / split / f"{split[1]}.jpg")
        (tmp_path / f"{split}_labels.csv").write_text(f"{split[1]}.jpg,1.5,2,30,15,cat\n")
        (tmp_path / "roboflow" / split).mkdir(parents=True)
        image(tmp_path / "roboflow" / split / "1.jpg")
        (tmp_path / "roboflow" / split / "_annotations.csv").write_text(
            "filename,width,height,class,xmin,ymin,xmax,ymax\n1.jpg,40,20,cat,1.5,2,30,15\n"
        )
    wanted = {"train": {"r": (CAT,)}, "test": {"e": (CAT,)}}
    assert read(tmp_path) == wanted
    given = {"test_file": str(tmp_path / "test_labels.csv"), "images_root": str(tmp_path)}
    assert read(tmp_path / "train_labels.csv", **given) == wanted
    assert read(tmp_path / "roboflow") == {"train": {"train/1": (CAT,)}, "test": {"test/1": (CAT,)}}


def test_an_encoding_that_the_user_names(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_bytes("a.jpg,1.5,2,30,15,浣熊\n".encode("gb18030"))
    with pytest.raises(ValueError, match=r"dataset\.encoding"):
        read(tmp_path / "labels.csv")
    (found,) = read(tmp_path / "labels.csv", encoding="gb18030")["train"]["a"]
    assert found.name == "浣熊"
    with pytest.raises(ValueError, match=r"dataset\.encoding"):
        CsvSource(root="a", encoding="zip")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.jpg,1,2,x,15,cat", "line 3: x2"),
        ("a.jpg,1,2,nan,15,cat", "line 3: x2"),
        ("a.jpg,1,2,1e300,15,cat", "line 3: x2"),
        ("a.jpg,1,2,30,,cat", "line 3: y2"),
        ("a.jpg,1,2,30,15,", "line 3: expected a class"),
        ("a.jpg,1,2", "line 3: expected a class"),
        (",1,2,30,15,cat", "line 3: expected the name of an image"),
        ("gone.jpg,1,2,30,15,cat", "gone.jpg"),
        ("../a.jpg,1,2,30,15,cat", "dataset.outside=true"),
    ],
)
def test_a_wrong_row_makes_its_image_unusable(tmp_path: Path, row: str, said: str) -> None:
    root = tmp_path / "set"
    image(tmp_path / "a.jpg")
    image(root / "b.jpg")
    if not row.startswith(".."):
        image(root / "a.jpg")
    file = root / "labels.csv"
    file.write_text(f"filename,xmin,ymin,xmax,ymax,class\nb.jpg,1.5,2,30,15,cat\n{row}\n")
    source = CsvSource(root=str(file), test_share=0.0, max_bad=0.5)
    dataset = source.load(Split.train)
    assert [record.image_id for record in dataset.records] == ["b"]
    (bad,) = dataset.bad
    assert said in bad.reason
    assert bad.path == str(file)
    assert "\n" not in str(bad)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("words\nand more\n", "expected columns filename, xmin"),
        ("filename,x,y,w,h,class\na.jpg,1,2,3,4,cat\n", "expected columns filename, xmin"),
        ('a.jpg,1,2,30,15,"' + "c" * 200_000 + '"\n', "field"),
    ],
)
def test_another_file_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"labels\.csv") as caught:
        read(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_in_place_of_pixels_are_named(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("a.jpg,0.1,0.2,0.5,0.6,cat\n")
    with pytest.raises(ValueError, match="shares"):
        read(tmp_path)
    assert "relative_boxes" in check_source(CsvSource(root=str(tmp_path), test_share=0.0)).counts


def test_another_stated_size_is_found(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    (tmp_path / "l.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,80,40,cat,1,2,30,15\n")
    assert "size_mismatch" in check_source(CsvSource(root=str(tmp_path), test_share=0.0)).counts


def test_a_folder_without_files_and_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such path"):
        read(tmp_path / "gone.csv")
    (tmp_path / "l.csv").write_text("a.jpg,1,2,30,15,cat\n")
    with pytest.raises(FileNotFoundError, match=r"dataset\.images_root"):
        read(tmp_path / "l.csv", images_root=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"dataset\.root"):
        read(tmp_path, test_file=str(tmp_path / "l.csv"))


def test_the_split_does_not_depend_on_where_images_are(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(20)]
    ids = []
    for folder in ("beside", "below/images", "without"):
        root = tmp_path / folder.partition("/")[0]
        root.mkdir()
        rows = "".join(f"{name},1.5,2,30,15,cat\n" for name in names)
        (root / "labels.csv").write_text(f"filename,xmin,ymin,xmax,ymax,class\n{rows}")
        for name in names if folder != "without" else ():
            image(tmp_path / folder / name)
        source = CsvSource(root=str(root))
        ids.append({split: [entry.image_id for entry in source.entries(split)] for split in (Split.train, Split.test)})
    assert ids[0] == ids[1] == ids[2]
    assert 0 < len(ids[0][Split.test]) < 10


def test_images_of_one_name_are_divided_by_their_paths(tmp_path: Path) -> None:
    for number in range(20):
        image(tmp_path / f"{number}/image.jpg")
    (tmp_path / "labels.csv").write_text("".join(f"{number}/image.jpg,1.5,2,30,15,cat\n" for number in range(20)))
    assert 0 < len(CsvSource(root=str(tmp_path)).entries(Split.test)) < 10
