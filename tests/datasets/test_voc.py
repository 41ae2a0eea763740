"""voc: the reader of folders and files, the writers, and the 1 that VOC counts from."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.datasets.source import Split, TooManyBadError
from detpipe.datasets.voc import (
    BrokenAnnotationError,
    VocSource,
    read_voc_annotation,
    write_voc_annotation,
    write_voc_results,
)
from detpipe.structures import Dataset, Detections, GroundTruth, ImageRecord
from tests.datasets.conftest import VocFolder, voc_object


def load(voc: VocFolder, split: Split = Split.train, **settings: object) -> Dataset:
    return VocSource(root=str(voc.root), **{"max_bad": 1.0, **settings}).load(split)  # type: ignore[arg-type]


def test_takes_one_from_the_first_corner_only(voc: VocFolder) -> None:
    path = voc.xml("a", voc_object(1, 1, 30, 20) + voc_object(5, 6, 7, 9))
    boxes = [one.box for one in read_voc_annotation(path).objects]
    assert boxes == [(0, 0, 30, 20), (4, 5, 7, 9)]


def test_reads_float_coordinates_and_strips_names(voc: VocFolder) -> None:
    annotation = read_voc_annotation(voc.xml("a", voc_object(2.5, " 3 ", "1e1", "\n12\n", name=" hot dog\n")))  # type: ignore[arg-type]
    assert annotation.objects[0].box == (1.5, 2, 10, 12)
    assert annotation.objects[0].name == "hot dog"
    assert annotation.stated_size is None
    assert annotation.filename == ""


def test_mends_swapped_corners_and_says_so(voc: VocFolder) -> None:
    annotation = read_voc_annotation(voc.xml("a", voc_object(12, 13, 3, 4)))
    assert annotation.objects[0].box == (2, 3, 12, 13)
    assert [note.kind for note in annotation.notes] == ["swapped_corners"]


def test_zero_based_file_is_noted_and_stays_in_the_image(voc: VocFolder) -> None:
    annotation = read_voc_annotation(voc.xml("a", voc_object(0, 3, 10, 12)))
    assert annotation.objects[0].box == (0, 2, 10, 12)
    assert [note.kind for note in annotation.notes] == ["zero_based_boxes"]


def test_difficult_is_optional(voc: VocFolder) -> None:
    plain = voc_object(1, 1, 9, 9)
    hard = plain.replace("</object>", "<difficult>1</difficult></object>")
    assert [one.difficult for one in read_voc_annotation(voc.xml("a", plain + hard)).objects] == [False, True]


def test_parts_of_an_object_are_no_objects(voc: VocFolder) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    path = voc.xml("a", voc_object(1, 1, 9, 9).replace("</object>", f"{part}</object>"))
    assert [one.name for one in read_voc_annotation(path).objects] == ["cat"]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ("<object><name>cat</name></object>", "expected <name> and <bndbox>"),
        (voc_object(1, 1, 9, 9, name=" "), "expected <name> and <bndbox>"),
        (voc_object(1, 1, 9, float("nan")), "<ymax>: expected a finite number, got 'nan'"),
        (voc_object(1, "x", 9, 9), "<ymin>: expected a number, got 'x'"),  # type: ignore[arg-type]
        ("<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>", "<ymin>: expected a number, got None"),
        ("<object>", "in XML"),
    ],
)
def test_broken_annotation_names_file_and_fault(voc: VocFolder, objects: str, message: str) -> None:
    with pytest.raises(BrokenAnnotationError, match=rf"a\.xml: .*{message}"):
        read_voc_annotation(voc.xml("a", objects))


def test_hostile_and_foreign_xml_is_refused(voc: VocFolder) -> None:
    path = voc.annotations / "a.xml"
    path.write_text('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>')
    with pytest.raises(BrokenAnnotationError, match=r"a\.xml"):
        read_voc_annotation(path)
    path.write_text("<html></html>")
    with pytest.raises(BrokenAnnotationError, match="expected <annotation>, got 'html'"):
        read_voc_annotation(path)


def test_annotation_without_objects_is_an_empty_image(voc: VocFolder) -> None:
    voc.image("a.jpg")
    voc.xml("a", "")
    voc.pair("b")
    dataset = load(voc, split_seed=0)
    other = load(voc, Split.test, split_seed=0)
    truths = {**dataset.ground_truth, **other.ground_truth}
    assert truths["a"].boxes.shape == (0, 4)
    assert len(truths["b"]) == 1


def test_loads_lists_in_their_order_with_true_sizes(voc: VocFolder) -> None:
    for stem in ("b", "a", "c"):
        voc.pair(stem)
    voc.list("trainval", "b\na\n")
    voc.list("test", "c\n")
    train = load(voc)
    assert [record.image_id for record in train.records] == ["b", "a"]
    assert train.records[0] == ImageRecord("b", voc.images / "b.jpg", (20, 30))
    assert (train.classes, train.category_ids, train.bad) == (("cat",), (1,), ())
    np.testing.assert_array_equal(train.ground_truth["a"].boxes, [[2, 3, 12, 13]])
    assert [record.image_id for record in load(voc, Split.test).records] == ["c"]


def test_classes_are_the_same_for_each_split_and_sorted(voc: VocFolder) -> None:
    voc.pair("a", "zebra")
    voc.pair("b", "hot dog")
    voc.list("trainval", "a\n")
    voc.list("test", "b\n")
    assert load(voc).classes == load(voc, Split.test).classes == ("hot dog", "zebra")
    assert load(voc).ground_truth["a"].labels.tolist() == [2]


def test_chosen_classes_give_the_order_and_drop_others(voc: VocFolder, caplog: pytest.LogCaptureFixture) -> None:
    voc.image("a.jpg")
    voc.xml("a", voc_object(1, 1, 9, 9, "cat") + voc_object(2, 2, 9, 9, "ant"))
    voc.pair("b")
    voc.list("trainval", "a\n")
    voc.list("test", "b\n")
    dataset = load(voc, classes=["dog", "ant"])
    assert (dataset.classes, dataset.category_ids) == (("dog", "ant"), (1, 2))
    assert dataset.ground_truth["a"].labels.tolist() == [2]
    assert "'dog'" in caplog.text
    with pytest.raises(ValueError, match=r"classes: .*\['ant', 'cat'\].*\['racoon'\]"):
        load(voc, classes=["racoon"])


def test_boxes_are_clipped_and_empty_ones_dropped_with_a_word(voc: VocFolder, caplog: pytest.LogCaptureFixture) -> None:
    voc.image("a.jpg")
    click, outside, over = voc_object(5, 5, 5, 5), voc_object(100, 5, 120, 9), voc_object(11, 11, 99, 99)
    voc.xml("a", click + outside + over)
    voc.list("trainval", "a\n")
    voc.pair("b")
    truth = load(voc).ground_truth["a"]
    np.testing.assert_array_equal(truth.boxes, [[10, 10, 30, 20]])
    np.testing.assert_array_equal(truth.areas, [200])
    assert "dropped 2 boxes" in caplog.text


@pytest.mark.parametrize("image", ["a.jpg", "a.JPEG", "a.Png"])
def test_the_xmls_own_name_counts_more_than_filename(voc: VocFolder, image: str) -> None:
    """A file that was renamed or copied keeps its old <filename>, which may be that of another image."""
    path = voc.image(image)
    voc.pair("t")
    voc.xml("a", voc_object(1, 1, 9, 9), "<filename>t.jpg</filename>")
    voc.list("trainval", "a\n")
    voc.list("test", "t\n")
    source = VocSource(root=str(voc.root))
    assert source.load(Split.train).records[0].path == path
    notes = source.entries(Split.train)[0].notes
    assert [(one.kind, "'t.jpg'" in one.detail, image in one.detail) for one in notes] == [
        ("filename_mismatch", True, True)
    ]


def test_of_images_with_the_xmls_own_name_filename_chooses(voc: VocFolder) -> None:
    voc.image("a.jpg")
    path = voc.image("a.png")
    voc.xml("a", voc_object(1, 1, 9, 9), "<filename>a.png</filename>")
    voc.list("trainval", "a\n")
    voc.pair("z")
    assert load(voc).records[0].path == path


@pytest.mark.parametrize(
    ("file", "filename"),
    [
        ("other.png", "other.png"),
        ("other.png", "C:\\photos\\other.png"),
        ("other.JPG", "/home/x/other"),
        ("a.JPEG", "gone.jpg"),
        ("a.PNG", ""),
        ("a.b.jpg", "a.b"),
    ],
)
def test_finds_the_image_by_its_stem_else_by_filename(voc: VocFolder, file: str, filename: str) -> None:
    path = voc.image(file)
    voc.xml("a", voc_object(1, 1, 9, 9), f"<filename>{filename}</filename>")
    voc.list("trainval", "a\n")
    voc.pair("z")
    record = load(voc).records[0]
    assert (record.image_id, record.path) == ("a", path)


def test_flat_folder(tmp_path: Path) -> None:
    voc = VocFolder(tmp_path / "made")
    for stem in "abcde":
        voc.pair(stem)
        for path in (voc.images / f"{stem}.jpg", voc.annotations / f"{stem}.xml"):
            path.rename(tmp_path / path.name)
    source = VocSource(root=str(tmp_path))
    assert len(source.load(Split.train)) == 4
    assert len(source.load(Split.test)) == 1


def test_what_cannot_be_used_is_named_and_left_out(voc: VocFolder) -> None:
    for stem in ("good", "cut", "broken", "gone"):
        voc.pair(stem)
    (voc.images / "cut.jpg").write_bytes((voc.images / "cut.jpg").read_bytes()[:-50])
    (voc.annotations / "broken.xml").write_text("<annotation>")
    (voc.images / "gone.jpg").unlink()
    voc.image("bare.jpg")
    voc.list("trainval", "good\ncut\nbroken\ngone\nbare\nnothing\n")
    voc.pair("t")
    dataset = load(voc)
    assert [record.image_id for record in dataset.records] == ["good"]
    assert [
        name in str(one) for name, one in zip(("cut", "broken", "gone", "bare", "nothing"), dataset.bad, strict=True)
    ]
    assert "truncated" in dataset.bad[0].reason
    assert "image without XML" in dataset.bad[3].reason
    assert "neither image nor XML" in dataset.bad[4].reason
    with pytest.raises(TooManyBadError, match=r"5 of 6 images can't be used: .*cut\.jpg.*and 2 more.*max_bad=0\.8"):
        load(voc, max_bad=0.8)
    assert len(load(voc, max_bad=0.84)) == 1


def test_without_lists_images_without_xml_are_left_out(voc: VocFolder) -> None:
    for stem in ("a", "b"):
        voc.pair(stem)
    bare = voc.image("bare.jpg")
    source = VocSource(root=str(voc.root))
    assert len(source.load(Split.train)) + len(source.load(Split.test)) == 2
    assert [(one.kind, one.file) for one in source.strays()] == [("missing_annotation", str(bare))]


def test_missing_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a VOC folder.*set dataset\.root"):
        VocSource(root=str(tmp_path / "none")).load(Split.train)
    (tmp_path / "VOC2007").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"expected a VOC folder with Annotations/\*.xml.*VOC2007.*set dataset\.root"
    ):
        VocSource(root=str(tmp_path)).load(Split.train)


def test_a_split_that_is_not_there(voc: VocFolder) -> None:
    voc.pair("a")
    assert not VocSource(root=str(voc.root)).has(Split.val)
    with pytest.raises(ValueError, match="expected a val split"):
        load(voc, Split.val)
    with pytest.raises(ValueError, match="expected images"):
        load(voc, Split.test)


def test_settings_are_checked() -> None:
    for wrong in ({"max_bad": 1.5}, {"test_share": 0.0}, {"classes": []}, {"classes": ["a", "a"]}):
        with pytest.raises(ValueError, match="expected"):
            VocSource(root="x", **wrong)  # type: ignore[arg-type]


# Eighths are exact in float32, also after the 1; VOC can't say less than a pixel.
corner = st.integers(0, 200 * 8).map(lambda value: value / 8)
side = st.integers(9, 100 * 8).map(lambda value: value / 8)


@settings(max_examples=50, deadline=None)
@given(boxes=st.lists(st.tuples(corner, corner, side, side), max_size=4), data=st.data())
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[float, ...]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("voc") / "a.xml"
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    labels = data.draw(st.lists(st.integers(1, 2), min_size=len(boxes), max_size=len(boxes)))
    truth = GroundTruth.from_boxes(corners, labels)
    classes = ("hot dog", 'a<b>&"c" ü')
    write_voc_annotation(path, "ü & <x>.jpg", (300, 301), truth, classes)
    annotation = read_voc_annotation(path)
    assert annotation.filename == "ü & <x>.jpg"
    assert annotation.stated_size == (300, 301)
    assert annotation.notes == ()
    assert [one.box for one in annotation.objects] == corners
    assert [one.name for one in annotation.objects] == [classes[label - 1] for label in labels]


def test_writer_keeps_difficult_and_refuses_what_voc_cannot_say(tmp_path: Path) -> None:
    truth = GroundTruth.from_boxes([[0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 5]], [1, 1, 1])
    truth.difficult[0], truth.crowd[1] = True, True
    write_voc_annotation(tmp_path / "a.xml", "a.jpg", (9, 9), truth, ("cat",))
    assert [one.difficult for one in read_voc_annotation(tmp_path / "a.xml").objects] == [True, True, False]
    with pytest.raises(ValueError, match=r"b\.xml: expected boxes .*drop the box"):
        write_voc_annotation(tmp_path / "b.xml", "b.jpg", (9, 9), GroundTruth.from_boxes([[0, 0, 1, 5]], [1]), ("cat",))
    assert not (tmp_path / "b.xml").exists()


def dataset_of(*ids: str, classes: tuple[str, ...] = ("cat", "hot dog")) -> Dataset:
    records = tuple(ImageRecord(one, Path(f"{one}.jpg"), (20, 30)) for one in ids)
    truths = {one: GroundTruth.from_boxes([], []) for one in ids}
    return Dataset("set", classes, tuple(range(1, len(classes) + 1)), records, truths)


def test_result_files_add_the_one_back(tmp_path: Path) -> None:
    found = Detections(
        np.array([[0, 0, 10, 12], [1.25, 2, 3, 4]], np.float32), np.array([0.75, 0.5], np.float32), np.array([2, 1])
    )
    write_voc_results(tmp_path, dataset_of("a", "b"), {"b": found})
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == "b 0.5 2.25 3.00 3.00 4.00\n"
    assert (tmp_path / "comp4_det_test_hot dog.txt").read_text() == "b 0.75 1.00 1.00 10.00 12.00\n"
    write_voc_results(tmp_path, dataset_of("a"), {})
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == ""


def test_result_files_refuse_strangers(tmp_path: Path) -> None:
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="expected detections of its own images"):
        write_voc_results(tmp_path, dataset_of("a"), {"x": none})
    with pytest.raises(ValueError, match="rename the class"):
        write_voc_results(tmp_path, dataset_of("a", classes=("../cat",)), {})


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("raccoon", (160, 173), (40, 44)), ("bccd", (292, 4886 - 945), (72, 945)), ("voc2012_100", (80, 212), (20, 61))],
)
def test_real_folders(
    shared_data: Path, caplog: pytest.LogCaptureFixture, name: str, train: tuple[int, int], test: tuple[int, int]
) -> None:
    source = VocSource(root=str(shared_data / name))
    with caplog.at_level(logging.INFO):
        splits = [source.load(Split.train), source.load(Split.test)]
    counts = [(len(one), sum(map(len, one.ground_truth.values()))) for one in splits]
    assert counts == [train, test]
    assert not {r.image_id for r in splits[0].records} & {r.image_id for r in splits[1].records}
    assert splits[0].bad == splits[1].bad == ()
    assert ("dropped 2 boxes" in caplog.text) == (name == "bccd")
    if name == "voc2012_100":
        assert sum(int(t.difficult.sum()) for one in splits for t in one.ground_truth.values()) == 38
        assert len(splits[0].classes) == 20
