"""cvat: boxes, outlines, ellipses, masks and rotations by hand, subsets, and other files."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detpipe.datasets.cvat import CvatSource
from detpipe.datasets.entry import RawObject
from detpipe.datasets.source import Split
from tests.datasets.other_formats import image


def source_of(root: Path, shapes: str, attributes: str = "", meta: str = "") -> CvatSource:
    image(root / "a.jpg")
    image(root / "b.jpg")
    (root / "annotations.xml").write_text(
        f"<annotations><version>1.1</version>{meta}"
        f'<image id="0" name="photos/a.jpg" width="40" height="20" {attributes}>'
        f'{shapes}</image><image id="1" name="b.jpg" width="40" height="20"/></annotations>'
    )
    return CvatSource(root=str(root / "annotations.xml"), test_share=0.0, max_bad=0.5)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<box label="cat" occluded="1" xtl="1.5" ytl="2" xbr="9" ybr="12" z_order="0"/>', (1.5, 2, 9, 12)),
        ('<box label="cat" xtl="10" ytl="4" xbr="20" ybr="8" rotation="90"/>', (13, 1, 17, 11)),
        ('<polygon label="cat" points="1,2;9.5,3;4,12"/>', (1, 2, 9.5, 12)),
        ('<polyline label="cat" points="1,2;9.5,3"/>', (1, 2, 9.5, 3)),
        ('<ellipse label="cat" cx="10" cy="10" rx="4" ry="2"/>', (6, 8, 14, 12)),
        ('<ellipse label="cat" cx="10" cy="10" rx="4" ry="2" rotation="90"/>', (8, 6, 12, 14)),
        ('<mask label="cat" rle="1, 2" left="3" top="4" width="5" height="6"/>', (3, 4, 8, 10)),
    ],
)
def test_shapes(tmp_path: Path, shape: str, box: tuple[float, ...]) -> None:
    source = source_of(tmp_path, shape)
    source.load(Split.train)
    first, second = source.entries(Split.train)
    (found,) = first.objects
    assert found.name == "cat"
    assert found.box == pytest.approx(box)
    assert second.objects == ()


def test_what_has_no_box_or_is_outside(tmp_path: Path) -> None:
    shapes = (
        '<points label="cat" points="1,2"/><tag label="sunny"/><skeleton label="cat"><points label="eye" points="1,2"/>'
        '</skeleton><box label="cat" outside="1" xtl="1" ytl="2" xbr="3" ybr="4"/>'
        '<box label="dog" outside="0" xtl="1" ytl="2" xbr="3" ybr="4"><attribute name="age">3</attribute></box>'
    )
    entry = source_of(tmp_path, shapes).entries(Split.train)[0]
    assert entry.objects == (RawObject("dog", (1.0, 2.0, 3.0, 4.0)),)
    assert [note.kind for note in entry.notes] == ["object_without_box"] * 2


def test_subsets_are_splits_and_labels_have_their_order(tmp_path: Path) -> None:
    meta = "<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>"
    source = source_of(tmp_path, '<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4"/>', 'subset="Validation"', meta)
    assert [one.image_id for one in source.entries(Split.test)] == ["a"]  # there are no test images
    assert [one.image_id for one in source.entries(Split.train)] == ["b"]
    assert source.known_classes() == ["dog", "cat"]


def test_a_project_has_images_of_one_name_in_a_folder_for_each_subset(tmp_path: Path) -> None:
    for subset in ("Train", "Test"):
        image(tmp_path / "images" / subset / "day 1" / "0.jpg")
    images = "".join(
        f'<image id="{number}" name="day 1/0.jpg" subset="{subset}">'
        f'<box label="{label}" xtl="1" ytl="2" xbr="3" ybr="4"/></image>'
        for number, (subset, label) in enumerate([("Train", "cat"), ("Test", "dog")])
    )
    (tmp_path / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    source = CvatSource(root=str(tmp_path), max_bad=0)
    for split, name in ((Split.train, "cat"), (Split.test, "dog")):
        source.load(split)
        (entry,) = source.entries(split)
        assert entry.image == tmp_path / "images" / split.value.title() / "day 1" / "0.jpg"
        assert [one.name for one in entry.objects] == [name]


def test_if_no_image_is_there_the_setting_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = source_of(tmp_path, "")
    for name in "ab":
        (tmp_path / f"{name}.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(source.entries(Split.train)) == 2
    assert "none of its 2 images is in" in caplog.text
    assert "dataset.images_root" in caplog.text


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ('<box label="" xtl="1" ytl="2" xbr="3" ybr="4"/>', "label of each box"),
        ('<box label="cat" xtl="1" ytl="2" xbr="3"/>', "ybr"),
        ('<box label="cat" xtl="nan" ytl="2" xbr="3" ybr="4"/>', "xtl"),
        ('<box label="cat" xtl="1e99" ytl="2" xbr="3" ybr="4"/>', "xtl"),
        ('<polygon label="cat" points=""/>', "expected points"),
        ('<polygon label="cat" points="1;2"/>', "points"),
    ],
)
def test_a_wrong_shape_makes_its_image_unusable(tmp_path: Path, shape: str, said: str) -> None:
    dataset = source_of(tmp_path, shape).load(Split.train)
    (bad,) = dataset.bad
    assert said in bad.reason
    assert "photos/a.jpg" in bad.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("<annotations>", "error on reading it"),
        ("<annotation/>", "<annotation>"),
        ("<annotations><track/></annotations>", "tracks"),
        ("<annotations><image/></annotations>", "a name of each image"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "entities"),
    ],
)
def test_another_file_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "annotations.xml"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"annotations\.xml") as caught:
        CvatSource(root=str(file)).has(Split.train)
    assert said in str(caught.value)
