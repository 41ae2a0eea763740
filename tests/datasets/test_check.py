"""check: each fault is made once, and found, and nothing else is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe.datasets.check import CheckReport, check_source
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.findings import SEVERITY, Finding, Severity, finding
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.voc import VocSource
from detpipe.structures import Stretch
from tests.datasets.conftest import VocFolder, voc_object


def sound(voc: VocFolder) -> VocFolder:
    """Four images to train on and one to test on, without a fault."""
    for stem in "abcdt":
        voc.pair(stem)
    voc.list("trainval", "a\nb\nc\nd\n")
    voc.list("test", "t\n")
    return voc


def check(voc: VocFolder, full: bool = True, **settings: object) -> CheckReport:
    return check_source(VocSource(root=str(voc.root), **{"max_bad": 1.0, **settings}), full=full)  # type: ignore[arg-type]


def test_sound_data_have_no_finding(voc: VocFolder) -> None:
    report = check(sound(voc))
    assert report.findings == ()
    assert report.to_json() == {"findings": [], "counts": {}}
    assert report.to_text() == "train: 4 images; objects: cat 4\ntest: 1 image; objects: cat 1\nnothing found"


def cut_short(voc: VocFolder) -> None:
    (voc.images / "a.jpg").write_bytes((voc.images / "a.jpg").read_bytes()[:-9])


def save_over(voc: VocFolder, kind: str, mode: str = "RGB", orientation: int = 1, height: int = 20) -> None:
    pixels = np.random.default_rng(9).integers(0, 256, (height, 30, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    PIL.Image.fromarray(pixels).convert(mode).save(voc.images / "a.jpg", kind, exif=exif)


def size_zero(voc: VocFolder) -> None:
    size = "<size><width>0</width><height>0</height><depth>3</depth></size>"
    voc.xml("a", voc_object(1, 1, 9, 9), size)


def copy(voc: VocFolder, source: str, target: str) -> None:
    (voc.images / f"{target}.jpg").write_bytes((voc.images / f"{source}.jpg").read_bytes())


FAULTS: list[tuple[str, Callable[[VocFolder], object], str]] = [
    ("broken_image", lambda voc: (voc.images / "a.jpg").write_bytes(b"nothing"), "a.jpg"),
    ("truncated_image", cut_short, "a.jpg"),
    ("wrong_extension", lambda voc: save_over(voc, "PNG"), "a.jpg"),
    ("greyscale", lambda voc: save_over(voc, "JPEG", "L"), "a.jpg"),
    ("exif_rotation", lambda voc: save_over(voc, "JPEG", orientation=3), "a.jpg"),
    ("size_mismatch", lambda voc: save_over(voc, "JPEG", height=25), "a.xml"),
    ("size_mismatch", size_zero, "a.xml"),
    ("duplicate_object", lambda voc: voc.xml("a", voc_object(5, 5, 9, 9) * 2), "a.xml"),
    ("zero_area_box", lambda voc: voc.xml("a", voc_object(5, 5, 5, 9)), "a.xml"),
    ("swapped_corners", lambda voc: voc.xml("a", voc_object(9, 9, 5, 5)), "a.xml"),
    ("box_out_of_bounds", lambda voc: voc.xml("a", voc_object(5, 5, 31, 9)), "a.xml"),
    ("box_out_of_bounds", lambda voc: voc.xml("a", voc_object(90, 90, 99, 99)), "a.xml"),
    ("zero_based_boxes", lambda voc: voc.xml("a", voc_object(0, 0, 9, 9)), "a.xml"),
    ("broken_annotation", lambda voc: voc.xml("a", "<object>"), "a.xml"),
    ("missing_annotation", lambda voc: (voc.annotations / "a.xml").unlink(), "a.jpg"),
    ("missing_annotation", lambda voc: voc.image("stray.jpg"), "stray.jpg"),
    ("missing_image", lambda voc: (voc.images / "a.jpg").unlink(), "a.xml"),
    ("list_entry_without_files", lambda voc: voc.list("trainval", "a\nb\nc\nd\nnone\n"), "none"),
    ("duplicate_list_entry", lambda voc: voc.list("trainval", "a\na\nb\nc\nd\n"), "trainval.txt"),
    ("filename_mismatch", lambda voc: voc.xml("u", voc_object(1, 1, 9, 9), "<filename>a.jpg</filename>"), ""),
    ("duplicate_image", lambda voc: copy(voc, "a", "b"), "b.jpg"),
    ("duplicate_image", lambda voc: copy(voc, "a", "t"), "t.jpg"),
    ("split_overlap", lambda voc: voc.list("test", "t\na\n"), "a.jpg"),
    ("empty_image", lambda voc: voc.xml("a", ""), "a.xml"),
    ("untrained_class", lambda voc: voc.annotation("t", name="dog"), "dog"),
]


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(("kind", "spoil", "file"), FAULTS)
def test_each_fault_is_found_alone(
    voc: VocFolder, kind: str, spoil: Callable[[VocFolder], object], file: str, full: bool
) -> None:
    spoil(sound(voc))
    if kind == "filename_mismatch":  # an annotation more that names another's image
        voc.list("trainval", "u\nb\nc\nd\n")
        file = "u.xml"
    report = check(voc, full)
    assert [(one.kind, Path(one.file).name) for one in report.findings] == [(kind, file)]
    assert report.counts == {kind: 1}
    assert report.findings[0].severity is SEVERITY[kind]
    assert f"{kind}: 1" in report.to_text()


def test_alpha_inside_jpg_is_two_findings(voc: VocFolder) -> None:
    save_over(sound(voc), "PNG", "RGBA")
    assert check(voc).counts == {"wrong_extension": 1, "alpha_channel": 1}


def test_only_a_full_check_decodes(voc: VocFolder) -> None:
    path = sound(voc).image("a.png")
    (voc.images / "a.jpg").unlink()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(bytes(data))
    assert check(voc, full=False).findings == ()
    assert check(voc).counts == {"broken_image": 1}


def test_leaks_say_between_what(voc: VocFolder) -> None:
    copy(sound(voc), "a", "b")
    copy(voc, "a", "t")
    details = [one.detail for one in check(voc).findings]
    assert details[0].startswith("identical to a.jpg; both are in train")
    assert details[1].startswith("identical to a.jpg; that one is in train, this one in test")


def test_above_max_bad_is_an_error_of_its_own(voc: VocFolder) -> None:
    cut_short(sound(voc))
    assert "too_many_bad" not in check(voc, max_bad=0.25).counts
    report = check(voc, max_bad=0.2)
    assert report.counts == {"truncated_image": 1, "too_many_bad": 1}


def test_classes_that_are_not_chosen(voc: VocFolder) -> None:
    sound(voc).annotation("a", name="dog")
    report = check(voc, classes=["cat"])
    assert [(one.kind, one.detail.split(",")[0]) for one in report.findings] == [
        ("unknown_class", "1 objects of 'dog'")
    ]
    assert report.objects == {"train": {"cat": 3}, "test": {"cat": 1}}


def test_report_is_sorted_and_workers_do_not_change_it(voc: VocFolder) -> None:
    sound(voc).xml("d", "")
    voc.xml("c", voc_object(5, 5, 5, 5))
    cut_short(voc)
    report = check(voc)
    assert [one.severity for one in report.findings] == [Severity.ERROR, Severity.WARNING, Severity.INFO]
    again = check_source(VocSource(root=str(voc.root), max_bad=1.0), workers=2)
    assert again == report


def test_json_text_and_levels() -> None:
    found = (finding("broken_image", "<a>.jpg", "x"), finding("zero_area_box", "b", "y"), finding("crowd", "c", "z"))
    report = CheckReport(found, {"train": 3}, {"train": {}})
    assert [len(report.at_least(one)) for one in Severity] == [1, 2, 3]
    assert json.loads(json.dumps(report.to_json())) == {
        "findings": [
            {"kind": "broken_image", "severity": "error", "file": "<a>.jpg", "detail": "x"},
            {"kind": "zero_area_box", "severity": "warning", "file": "b", "detail": "y"},
            {"kind": "crowd", "severity": "info", "file": "c", "detail": "z"},
        ],
        "counts": {"broken_image": 1, "zero_area_box": 1, "crowd": 1},
    }
    assert isinstance(found[0], Finding)
    many = CheckReport(found[:1] * 9, {}, {}).to_text(files_per_kind=2)
    assert many == "error: broken_image: 9\n  <a>.jpg: x\n  <a>.jpg: x\n  ... and 7 more"


def test_coco_crowds_and_strays(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (30, 20), "grey").save(tmp_path / "1.png")
    annotation = {"category_id": 1, "bbox": [1, 1, 5, 5]}
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 31, "height": 20}],
        "annotations": [{**annotation, "image_id": 1, "iscrowd": 1}, {**annotation, "image_id": 2}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    report = check_source(CocoSource(test_json=str(tmp_path / "a.json"), test_images=str(tmp_path)))
    assert report.counts == {"size_mismatch": 1, "orphan_annotation": 1, "crowd": 1}


def test_images_without_annotations_are_no_fault(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (30, 20), "grey").save(tmp_path / "1.png")
    report = check_source(ImageFolderSource(root=str(tmp_path), classes=["cat"]))
    assert report.findings == ()


def coco(folder: Path, boxes: list[Any], names: tuple[str, ...] = ("cat",), **more: Any) -> CheckReport:
    """The report on one image 40 high and 60 wide. boxes: of the first class. more: of each annotation."""
    PIL.Image.new("RGB", (60, 40), "grey").save(folder / "1.png")
    annotations = [{"image_id": 1, "category_id": 0, "bbox": box, **more} for box in boxes]
    content = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return check_source(CocoSource(test_json=str(folder / "a.json"), test_images=str(folder)))


@pytest.mark.parametrize(
    ("kind", "boxes", "more"),
    [
        ("relative_boxes", [[0.1, 0.2, 0.5, 0.5], [0, 0, 1, 1]], {}),
        ("relative_boxes", [[0.1, 0.2, 0.901, 0.8]], {"area": 0.4}),
        ("corner_boxes", [[40, 30, 60, 40], [5, 5, 50, 30]], {}),
        ("corner_boxes", [[40, 30, 60, 40], [5, 5, 50, 30]], {"area": 200}),
        ("relative_areas", [[5, 5, 30, 20], [10, 10, 30, 20]], {"area": 0.25}),
        ("duplicate_object", [[5, 5, 30, 20], [5, 5, 30, 20]], {}),
        # Sound boxes that a hasty rule would take for something else.
        (None, [[5, 5, 30, 20], [20, 10, 30, 20]], {}),
        (None, [[0, 0, 1, 1], [20, 10, 30, 20]], {}),
        (None, [[5, 5, 30, 20]], {"area": 1}),
        (None, [], {}),
        ("box_out_of_bounds", [[30, 10, 30.6, 30]], {}),
        ("box_out_of_bounds", [[40, 30, 60, 40], [5, 5, 50, 30], [50, 5, 20, 30]], {}),
    ],
)
def test_units_of_coco_boxes(tmp_path: Path, kind: str | None, boxes: list[Any], more: dict[str, Any]) -> None:
    counts = coco(tmp_path, boxes, **more).counts
    if kind == "corner_boxes":
        assert counts.pop("box_out_of_bounds") == 1
    if kind == "relative_areas" or not boxes:
        counts.pop("empty_image", None)
    assert counts == ({} if kind is None else {kind: 1})


def test_areas_of_sizes_are_no_corners(tmp_path: Path) -> None:
    report = coco(tmp_path, [[40, 30, 60, 40]], area=2400)
    assert report.counts == {"box_out_of_bounds": 1}


def test_a_voc_folder_of_shares(voc: VocFolder) -> None:
    for stem in "at":
        voc.pair(stem)
        voc.xml(stem, voc_object(0.1, 0.2, 0.5, 0.9))
    voc.list("trainval", "a\n")
    voc.list("test", "t\n")
    report = check(voc)
    assert report.counts["relative_boxes"] == 2
    assert "multiply" in report.at_least(Severity.ERROR)[0].detail
    assert report.objects == {"train": {"cat": 0}, "test": {"cat": 0}}


def test_boxes_under_a_pixel(tmp_path: Path) -> None:
    boxes = [[5, 5, 30, 20], [20, 10, 0.5, 0.9], [20, 10, 0.5, 9], [9, 9, 0, 0.5]]
    report = coco(tmp_path, boxes)
    assert report.counts == {"tiny_box": 1, "too_many_tiny": 1, "zero_area_box": 1}
    assert "1 boxes" in report.findings[0].detail
    assert "dataset.max_bad" in report.findings[1].detail
    assert report.objects == {"test": {"cat": 2}}  # on which a network can be trained
    source = CocoSource(test_json=str(tmp_path / "a.json"), test_images=str(tmp_path), max_bad=1)
    assert "too_many_tiny" not in check_source(source).counts


@pytest.mark.parametrize(
    ("names", "similar"),
    [
        (("cat", "Cat"), {"Cat": "cat"}),
        (("cat", "cats"), {"cats": "cat"}),
        (("box", "Boxes"), {"Boxes": "box"}),
        (("berry", "berries"), {"berries": "berry"}),
        (
            ("traffic light", "traffic_light", "Trafficlight"),
            {"traffic_light": "traffic light", "Trafficlight": "traffic light"},
        ),
        (("bus", "glass", "ski", "person", "s"), {}),
    ],
)
def test_similar_names_of_classes(tmp_path: Path, names: tuple[str, ...], similar: dict[str, str]) -> None:
    report = coco(tmp_path, [], names)
    found = [one for one in report.findings if one.kind == "similar_classes"]
    assert [one.file for one in found] == list(similar)
    assert all(f"class {similar[one.file]!r}" in one.detail for one in found)


@pytest.mark.parametrize(
    ("pixels", "detail"),
    [
        (np.zeros((20, 30), np.uint8), "all pixels are black"),
        (np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16), "the largest value is 15 of 255, .*stretch=bits"),
        (
            np.where(np.arange(600) < 598, np.arange(600) % 21, 255).reshape(20, 30).astype(np.uint8),
            "99 % .* at most 20 of",
        ),
    ],
)
def test_dark_images_are_found_and_their_stretch_is_named(tmp_path: Path, pixels: np.ndarray, detail: str) -> None:
    (tmp_path / "1.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    source = ImageFolderSource(root=str(tmp_path), classes=["cat"])
    found = [one for one in check_source(source).findings if one.kind == "dark_image"]
    assert len(found) == 1
    assert found[0].severity is Severity.WARNING
    assert re.search(detail, found[0].detail)
    if pixels.any():
        source = ImageFolderSource(root=str(tmp_path), classes=["cat"], stretch=Stretch.percentile)
        assert "dark_image" not in check_source(source).counts
    assert "dark_image" not in check_source(source, full=False).counts  # which does not decode


def test_a_usual_dark_photograph_is_no_fault(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60, (40, 40), dtype=np.uint8)
    pixels[:8, :8] = 200
    PIL.Image.fromarray(pixels).convert("RGB").save(tmp_path / "1.png")
    assert check_source(ImageFolderSource(root=str(tmp_path), classes=["cat"])).findings == ()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("raccoon", {"duplicate_image": 4, "greyscale": 3}),
        ("bccd", {"zero_area_box": 2}),
        ("voc2012_100", {}),
    ],
)
def test_real_folders(shared_data: Path, name: str, counts: dict[str, int]) -> None:
    report = check_source(VocSource(root=str(shared_data / name)), full=False)
    assert report.counts == counts
    assert report.at_least(Severity.ERROR) == []
    if name == "raccoon":
        pairs = {(Path(one.file).stem, one.detail) for one in report.findings if one.kind == "duplicate_image"}
        assert ("raccoon-116", "identical to raccoon-11.jpg; both are in train") in pairs
