"""labelme: shapes by hand, images beside their files and elsewhere, folders of splits, and wrong files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.check import check_source
from detpipe.datasets.entry import RawObject
from detpipe.datasets.labelme import LabelmeSource
from detpipe.datasets.source import Split
from tests.datasets.other_formats import image

SQUARE = {"label": "cat", "points": [[9, 2], [1.5, 12]], "shape_type": "rectangle"}
CAT = RawObject("cat", (1.5, 2.0, 9.0, 12.0))


def write(path: Path, *shapes: Any, name: str = "elsewhere.jpg") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.0.1", "shapes": shapes, "imagePath": name, "imageHeight": 20, "imageWidth": 40}
    path.write_text(json.dumps(content))


def source_of(root: Path, **settings: Any) -> LabelmeSource:
    return LabelmeSource(root=str(root), **{"test_share": 0.0, "max_bad": 0.5, **settings})


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (SQUARE, (1.5, 2, 9, 12)),
        ({"label": " cat", "points": [[1, 2], [9, 3], [4, 12]], "shape_type": "polygon"}, (1, 2, 9, 12)),
        ({"label": "cat", "points": [[1, 2], [9, 3], [4, 12]]}, (1, 2, 9, 12)),
        ({"label": "cat", "points": [[10, 10], [13, 14]], "shape_type": "circle"}, (5, 5, 15, 15)),
        # The points of a mask are its first and its last pixel.
        ({"label": "cat", "points": [[1, 2], [9, 12]], "shape_type": "mask", "mask": "iVBOR"}, (1, 2, 10, 13)),
        ({"label": "cat", "points": [[5, 2], [9, 7], [5, 12], [1, 7]], "shape_type": "rotation"}, (1, 2, 9, 12)),
    ],
)
def test_shapes(tmp_path: Path, shape: Any, box: tuple[float, ...]) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.json", shape)
    source = source_of(tmp_path)
    source.load(Split.train)
    (entry,) = source.entries(Split.train)
    (found,) = entry.objects
    assert found.name == "cat"
    assert found.box == pytest.approx(box)


def test_points_and_lines_are_noted_and_a_file_without_shapes_is_an_image_without_objects(tmp_path: Path) -> None:
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.json", *[{**SQUARE, "shape_type": kind} for kind in ("point", "line", "linestrip")])
    write(tmp_path / "b.json")
    first, second = source_of(tmp_path).entries(Split.train)
    assert first.objects == second.objects == ()
    assert [note.kind for note in first.notes] == ["object_without_box"] * 3


def test_difficult_objects_of_anylabeling(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.json", {**SQUARE, "difficult": True}, {**SQUARE, "difficult": False}, SQUARE)
    (entry,) = source_of(tmp_path).entries(Split.train)
    assert [one.difficult for one in entry.objects] == [True, False, False]


def test_where_images_are(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "json" / "a.json", SQUARE, name="..\\images\\a.jpg")
    for split in ("train", "test"):
        image(tmp_path / "splits" / split / "1.jpg")
        write(tmp_path / "splits" / split / "1.json", SQUARE, name="1.jpg")
    (entry,) = source_of(tmp_path / "splits").entries(Split.test)
    assert (entry.image_id, entry.objects) == ("test/1", (CAT,))
    (tmp_path / "splits").rename(tmp_path.parent / f"{tmp_path.name} splits")
    source = source_of(tmp_path)
    assert source.load(Split.train).records[0].path == tmp_path / "images" / "a.jpg"


def test_outlines_of_one_group_are_parts_of_one_object(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    parts = [[[1, 2], [4, 2], [4, 6]], [[6, 5], [9, 5], [9, 12]]]
    outlines = [{"label": "cat", "points": points, "shape_type": "polygon", "group_id": 0} for points in parts]
    other = {**outlines[1], "group_id": 1}
    write(
        tmp_path / "a.json",
        outlines[0],
        other,
        outlines[1],
        {**outlines[1], "group_id": None},
        {**SQUARE, "group_id": 0},
    )
    (entry,) = source_of(tmp_path).entries(Split.train)
    small = (6.0, 5.0, 9.0, 12.0)
    assert [one.box for one in entry.objects] == [(1.0, 2.0, 9.0, 12.0), small, small, CAT.box]


def test_json_files_of_other_programs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "i.jpg")
    write(tmp_path / "i.json", SQUARE)
    (tmp_path / "classes.json").write_text('["cat"]')
    assert LabelmeSource.recognise(tmp_path) is not None
    with caplog.at_level(logging.WARNING):
        assert len(source_of(tmp_path, max_bad=0).load(Split.train)) == 1
    assert "1 JSON files are not labelme's, as classes.json" in caplog.text


def test_check_names_images_without_a_file(tmp_path: Path) -> None:
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.json", SQUARE)
    counts = check_source(source_of(tmp_path)).counts
    assert counts["missing_annotation"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("{", "error on reading it"),
        ("[]", '"shapes"'),
        ('{"shapes": 3}', '"shapes"'),
        ('{"shapes": [3]}', "label and points"),
        ('{"shapes": [{"label": "", "points": []}]}', "expected a label"),
        ('{"shapes": [{"label": "cat", "points": []}]}', "expected points"),
        ('{"shapes": [{"label": "cat", "points": [[1]]}]}', "expected points"),
        ('{"shapes": [{"label": "cat", "points": [[1, NaN]]}]}', "points: expected"),
        ('{"shapes": [{"label": "cat", "points": [[1, 2]], "shape_type": "circle"}]}', "circle"),
    ],
)
def test_a_wrong_file_makes_its_image_unusable(tmp_path: Path, content: str, said: str) -> None:
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.json", SQUARE)
    (tmp_path / "b.json").write_text(content)
    (bad,) = source_of(tmp_path).load(Split.train).bad
    assert said in bad.reason
    assert bad.path.endswith("b.json")


def test_a_folder_without_files(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
            source_of(root).has(Split.train)
