"""via: shapes by hand, projects and both versions, attributes of classes, and wrong files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.auto import find_reading
from detpipe.datasets.entry import RawObject
from detpipe.datasets.source import Split
from detpipe.datasets.via import ViaSource
from tests.datasets.other_formats import image

RECT = {"name": "rect", "x": 1.5, "y": 2, "width": 7.5, "height": 10}
CAT = RawObject("cat", (1.5, 2.0, 9.0, 12.0))


def region(shape: Any = RECT, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def write(path: Path, *regions: Any, name: str = "a.jpg") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = {
        f"{one}12": {"filename": one, "size": 12, "regions": [], "file_attributes": {}} for one in (name, "b.jpg")
    }
    images[f"{name}12"]["regions"] = list(regions)
    path.write_text(json.dumps(images))
    return path


def source_of(root: Path, **settings: Any) -> ViaSource:
    for name in "ab":
        image(root.parent / f"{name}.jpg")
    return ViaSource(root=str(root), **{"test_share": 0.0, "max_bad": 0.5, **settings})


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (RECT, (1.5, 2, 9, 12)),
        ({"name": "circle", "cx": 10, "cy": 10, "r": 4}, (6, 6, 14, 14)),
        ({"name": "ellipse", "cx": 10, "cy": 10, "rx": 4, "ry": 2}, (6, 8, 14, 12)),
        ({"name": "ellipse", "cx": 10, "cy": 10, "rx": 4, "ry": 2, "theta": 1.5707963267948966}, (8, 6, 12, 14)),
        ({"name": "polygon", "all_points_x": [1, 9, 4], "all_points_y": [2, 3, 12]}, (1, 2, 9, 12)),
    ],
)
def test_shapes(tmp_path: Path, shape: Any, box: tuple[float, ...]) -> None:
    source = source_of(write(tmp_path / "via.json", region(shape, kind="cat")), max_bad=0)
    source.load(Split.train)
    first, second = source.entries(Split.train)
    assert first.objects[0].name == "cat"
    assert first.objects[0].box == pytest.approx(box)
    assert second.objects == ()


def test_a_project_and_the_first_version(tmp_path: Path) -> None:
    path = write(tmp_path / "via.json", region(kind="cat"))
    assert find_reading(path).word == find_reading(tmp_path).word == "via"
    images = json.loads(path.read_text())
    project = {"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {}}
    images["a.jpg12"]["regions"] = {"0": region(kind="cat")}
    for content in (project, images):
        path.write_text(json.dumps(content))
        assert source_of(path).entries(Split.train)[0].objects == (CAT,)
        assert find_reading(tmp_path).word == "via"


def test_attributes_and_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "via.json", region(), region({"name": "point", "cx": 1, "cy": 2}))
    entry = source_of(path).entries(Split.train)[0]
    assert [one.name for one in entry.objects] == ["object"]
    assert [note.kind for note in entry.notes] == ["object_without_box"]
    write(
        path, region(kind={"cat": True, "dog": False}), region(kind=" dog"), region(kind=""), region(), region(kind=7)
    )
    entry = source_of(path).entries(Split.train)[0]
    assert [one.name for one in entry.objects] == ["cat", "dog", "7"]
    assert len(entry.notes) == 2
    write(path, region(kind="cat", age="3"))
    with pytest.raises(ValueError, match=r"got kind, age; .*dataset\.attribute=kind"):
        source_of(path).has(Split.train)
    assert source_of(path, attribute="age").known_classes() == ["3"]


def test_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / split / "a.jpg")
        image(tmp_path / split / "b.jpg")
        write(tmp_path / split / "via_region_data.json", region(kind=split))
    source = find_reading(tmp_path).source({"max_bad": 0.0})
    for split, folder in ((Split.train, "train"), (Split.test, "val")):
        assert len(source.load(split)) == 2
        assert source.entries(split)[0].image == tmp_path / folder / "a.jpg"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({**RECT, "x": None}, "x: expected a number"),
        ({**RECT, "x": float("nan")}, "x: expected a finite"),
        ({"name": "polygon", "all_points_x": [1], "all_points_y": []}, "equal length"),
        ({"name": "polygon", "all_points_x": [], "all_points_y": []}, "expected points"),
    ],
)
def test_a_wrong_shape_makes_its_image_unusable(tmp_path: Path, shape: Any, said: str) -> None:
    (bad,) = source_of(write(tmp_path / "via.json", region(shape, kind="cat"))).load(Split.train).bad
    assert said in bad.reason
    assert "image a.jpg" in bad.reason


@pytest.mark.parametrize("content", ["", "[1", "[]", "3", '{"a": 3}', '{"a": {"filename": "a.jpg", "regions": [3]}}'])
def test_another_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "via.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"via\.json: expected VIA's JSON"):
        ViaSource(root=str(path)).has(Split.train)
