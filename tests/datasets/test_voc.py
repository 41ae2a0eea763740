"""voc: the reader of folders and files, the writers, and the 1 that VOC counts from."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.datasets.source import Split, TooManyBadError
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_xml import BrokenAnnotationError, read_voc_annotation, write_voc_annotation, write_voc_results
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
        (voc_object(1, 1, 9, 9, name=" "), "expected <name> in each <object>"),
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
    with pytest.raises(BrokenAnnotationError, match="an HTML page"):
        read_voc_annotation(path)
    path.write_text("<annotations></annotations>")
    with pytest.raises(BrokenAnnotationError, match="expected <annotation>, got 'annotations'"):
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


@pytest.mark.parametrize(
    ("images", "filename", "best"),
    [
        # A tile keeps the name of its source, whose picture is there as well.
        (["a.jfif", "source.jpg"], "source.jpg", "a.jfif"),
        # A name without suffix has a dot.
        (["scene.jpg", "scene.1.jpg", "scene.2.jpg"], "scene.1", "scene.1.jpg"),
        (["sub/scene.1.jpg", "scene.jpg"], "https://site.org/scene.1.jpg?x=1", "sub/scene.1.jpg"),
    ],
)
def test_the_image_of_an_odd_filename(voc: VocFolder, images: list[str], filename: str, best: str) -> None:
    for name in images:
        (voc.images / name).parent.mkdir(exist_ok=True)
        voc.image("any.png").rename(voc.images / name)
    voc.xml("a", voc_object(1, 1, 9, 9), f"<filename>{filename}</filename>")
    assert VocSource(root=str(voc.root)).entries(Split.train)[0].image == voc.images / best


def resized(path: Path, height: int, width: int) -> None:
    path.write_bytes(cv2.imencode(path.suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes())


def test_the_stated_size_decides_between_two_images(voc: VocFolder) -> None:
    size = "<size><width>40</width><height>10</height></size>"
    own, other = voc.image("a.jpg"), voc.image("other.jpg")
    path = voc.xml("a", voc_object(1, 1, 9, 9), f"<filename>other.jpg</filename>{size}")
    source = {"root": str(voc.root), "max_bad": 1.0}
    assert VocSource(**source).entries(Split.train)[0].image == own  # neither has it  # type: ignore[arg-type]
    resized(other, 10, 40)
    assert VocSource(**source).entries(Split.train)[0].image == other  # type: ignore[arg-type]
    resized(own, 40, 10)  # before rotation by EXIF it may be this size
    assert VocSource(**source).entries(Split.train)[0].image == own  # type: ignore[arg-type]
    own.unlink()
    resized(other, 9, 9)
    fault = VocSource(**source).entries(Split.train)[0].fault  # type: ignore[arg-type]
    assert fault is not None
    assert (fault.kind, "other.jpg has another size" in fault.detail) == ("missing_image", True)
    path.write_text(path.read_text().replace(size, "<size><width>0</width><height>0</height></size>"))
    assert VocSource(**source).entries(Split.train)[0].image == other  # type: ignore[arg-type]


def test_two_images_of_one_name_are_an_error_unless_the_size_decides(voc: VocFolder) -> None:
    voc.annotation("a").write_text(f"<annotation>{voc_object(1, 1, 9, 9)}</annotation>")
    for name in ("a.jpg", "a.png"):
        voc.image(name)
    fault = VocSource(root=str(voc.root)).entries(Split.train)[0].fault
    assert fault is not None
    assert (fault.kind, "a.jpg, a.png; remove one" in fault.detail) == ("ambiguous_image", True)
    voc.xml("a", voc_object(1, 1, 9, 9), "<size><width>40</width><height>10</height></size>")
    resized(voc.images / "a.png", 10, 40)
    assert VocSource(root=str(voc.root)).entries(Split.train)[0].image == voc.images / "a.png"


@pytest.mark.parametrize("filename", ["../secret/x.jpg", "{secret}/x.jpg", "file://{secret}/x.jpg"])
def test_a_filename_that_leads_outside_needs_the_setting(voc: VocFolder, filename: str) -> None:
    secret = voc.root.parent / "secret"
    secret.mkdir()
    voc.image("x.jpg").rename(secret / "x.jpg")
    (voc.root / "secret").symlink_to(secret)
    voc.xml("a", voc_object(1, 1, 9, 9), f"<filename>{filename.format(secret=secret)}</filename>")
    fault = VocSource(root=str(voc.root)).entries(Split.train)[0].fault
    assert fault is not None
    assert (fault.kind, "dataset.outside=true" in fault.detail) == ("outside_image", True)
    image = VocSource(root=str(voc.root), outside=True).entries(Split.train)[0].image
    assert image is not None
    assert image.samefile(secret / "x.jpg")


CHINESE, JAPANESE, KOREAN = "\u6c7d\u8f66", "\u30bd\u732b", "\uace0\uc591\uc774"


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        (CHINESE, "gb2312"),
        (CHINESE, "GBK"),
        ("\u93d1", "gb2312"),  # a sign of GBK that GB2312 lacks
        (JAPANESE, "Shift_JIS"),
        (JAPANESE, "EUC-JP"),
        (KOREAN, "euc-kr"),
        ("\ubdc1", "EUC-KR"),  # a sign of cp949 that EUC-KR lacks
        ("\u7e41\u9ad4", "Big5"),
        ("caf\xe9", "ISO-8859-1"),
        ("\u043a\u043e\u0442", "windows-1251"),
        (CHINESE, "UTF-16"),
        (CHINESE, "utf-8"),
    ],
)
def test_declared_encodings(voc: VocFolder, name: str, encoding: str) -> None:
    python = {"gb2312": "gb18030", "euc-kr": "cp949"}.get(encoding.lower(), encoding)
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation>{voc_object(1, 1, 9, 9, name)}</annotation>'
    path = voc.annotations / "a.xml"
    path.write_bytes(text.encode(python))
    annotation = read_voc_annotation(path)
    assert ([one.name for one in annotation.objects], annotation.notes) == ([name], ())


@pytest.mark.parametrize(
    ("data", "name", "kinds"),
    [
        # UTF-8 with a mark, UTF-16 without one and without a declaration, and a false declaration of UTF-16.
        (b"\xef\xbb\xbf<annotation>{}</annotation>", CHINESE, []),
        ("<annotation>{}</annotation>".encode("utf-16-le"), CHINESE, []),
        (b'<?xml version="1.0" encoding="utf-16"?><annotation>{}</annotation>', CHINESE, ["other_encoding"]),
        (b'<?xml version="1.0" encoding="unknown"?><annotation>{}</annotation>', CHINESE, ["other_encoding"]),
        (b'<?xml version="1.0" encoding="zlib"?><annotation>{}</annotation>', "cat", ["other_encoding"]),
    ],
)
def test_wrong_declarations(voc: VocFolder, data: bytes, name: str, kinds: list[str]) -> None:
    encoding = "utf-16-le" if b"<\0" in data else "utf-8"
    path = voc.annotations / "a.xml"
    path.write_bytes(data.replace("{}".encode(encoding), voc_object(1, 1, 9, 9, name).encode(encoding)))
    annotation = read_voc_annotation(path)
    assert [one.name for one in annotation.objects] == [name]
    assert [note.kind for note in annotation.notes] == kinds


@pytest.mark.parametrize("declaration", ["", '<?xml version="1.0" encoding="utf-8"?>'])
def test_other_bytes_than_declared(voc: VocFolder, declaration: str) -> None:
    path = voc.annotations / "a.xml"

    def write(name: str, folder: str, encoding: str) -> None:
        text = f"{declaration}<annotation><path>{folder}</path>{voc_object(1, 1, 9, 9, name)}</annotation>"
        path.write_bytes(text.encode(encoding))

    write("caf\xe9", "x", "latin-1")
    assert read_voc_annotation(path).objects[0].name == "caf\xe9"
    write("cat", CHINESE, "gb2312")  # only a path of another machine
    assert read_voc_annotation(path).objects[0].name == "cat"
    write(CHINESE, "x", "gb2312")
    with pytest.raises(BrokenAnnotationError, match=r"a\.xml: .*in a name.*dataset\.encoding=gb18030"):
        read_voc_annotation(path)
    assert read_voc_annotation(path, "gb2312").objects[0].name == CHINESE
    assert VocSource(root=str(voc.root), encoding="gb2312").known_classes() == [CHINESE]
    with pytest.raises(ValueError, match="encoding: expected the name of an encoding"):
        VocSource(root=str(voc.root), encoding="zlib")


@pytest.mark.parametrize(("text", "value"), [("12,5", 11.5), ("1e1", 9), (" 12.0 ", 11), ("+12", 11)])
def test_numbers_as_text(voc: VocFolder, text: str, value: float) -> None:
    path = voc.xml("a", voc_object(text, 1, 90, 90))  # type: ignore[arg-type]
    assert read_voc_annotation(path).objects[0].box[0] == value


@pytest.mark.parametrize("text", ["1,234.5", "1,2,3", "12px", "0x10", "inf"])
def test_texts_that_are_no_number(voc: VocFolder, text: str) -> None:
    with pytest.raises(BrokenAnnotationError, match="<xmin>: expected a"):
        read_voc_annotation(voc.xml("a", voc_object(text, 1, 90, 90)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (
            "<polygon><pt><x>3</x><y>5</y></pt><pt><x>10</x><y>4</y></pt><pt><x>7</x><y>12</y></pt></polygon>",
            (2, 3, 10, 12),
        ),
        ("<polygon><x1>3</x1><y1>5</y1><x2>10</x2><y2>4</y2><x3>7</x3><y3>12</y3></polygon>", (2, 3, 10, 12)),
        ("<polygon><point><x>3</x><y>4</y></point><point><x>10</x><y>12</y></point></polygon>", (2, 3, 10, 12)),
        ("<robndbox><cx>10</cx><cy>20</cy><w>8</w><h>4</h><angle>0</angle></robndbox>", (5, 17, 14, 22)),
        (
            "<robndbox><cx>10</cx><cy>20</cy><w>8</w><h>4</h><angle>1.5707963267948966</angle></robndbox>",
            (7, 15, 12, 24),
        ),
        ("<bndbox/><polygon><x1>3</x1><y1>4</y1><x2>10</x2><y2>12</y2></polygon>", (2, 3, 10, 12)),
    ],
)
def test_an_object_without_bndbox_has_the_box_around_its_shape(
    voc: VocFolder, shape: str, box: tuple[float, ...]
) -> None:
    path = voc.xml("a", f"<object><name>ship</name>{shape}</object>{voc_object(1, 1, 9, 9)}")
    annotation = read_voc_annotation(path)
    assert annotation.objects[0].box == pytest.approx(box)
    assert [one.name for one in annotation.objects] == ["ship", "cat"]
    assert annotation.notes == ()


@pytest.mark.parametrize(
    ("degrees", "box"), [("90.0", (5, 25, 45, 55)), ("0.0", (10, 20, 40, 60)), ("left", (10, 20, 40, 60))]
)
def test_a_box_that_cvat_rotated(voc: VocFolder, degrees: str, box: tuple[float, ...]) -> None:
    rotated = (
        "<object><name>cat</name><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox><attributes>"
        f"<attribute><name>rotation</name><value>{degrees}</value></attribute></attributes></object>"
    )
    (found,) = read_voc_annotation(voc.xml("a", rotated)).objects
    assert found.box == pytest.approx(box)


def test_an_object_without_any_box_is_left_out_and_named(voc: VocFolder, caplog: pytest.LogCaptureFixture) -> None:
    voc.image("a.jpg")
    ship = "<object><name>ship</name>{}</object>"
    voc.xml("a", ship.format("") + ship.format("<polygon/>") + voc_object(1, 1, 9, 9))
    voc.list("trainval", "a\n")
    voc.pair("z")
    dataset = load(voc, max_bad=0.0)
    assert len(dataset.ground_truth["a"]) == 1
    assert "object 'ship' lacks <bndbox> (2 times)" in caplog.text
    notes = VocSource(root=str(voc.root)).entries(Split.train)[0].notes
    assert [note.kind for note in notes] == ["object_without_box"]


def test_what_labelme_deleted_is_no_object(voc: VocFolder) -> None:
    deleted = voc_object(1, 1, 9, 9).replace("</object>", "<deleted>1</deleted></object>")
    path = voc.xml("a", deleted + voc_object(2, 2, 9, 9), "<imagesize><nrows>20</nrows><ncols>30</ncols></imagesize>")
    annotation = read_voc_annotation(path)
    assert [one.box[0] for one in annotation.objects] == [1]
    assert annotation.stated_size == (20, 30)


HOSTILE = {
    "external": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>',
    "parameter": '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1/x.dtd">%a;]><annotation></annotation>',
    "unknown entity": "<annotation>&a;</annotation>",
    "nothing": "\0" * 100,
    "spaces": " " * 100,
    "a list": "a\nb\n",
    "declarations": "<?xml " * 100_000,
    "long name": f"<annotation>{voc_object(1, 1, 9, 9, 'a' * 100_000)}</annotation>",
    "long number": f"<annotation>{voc_object(1, 1, 9, '1' * 100_000)}</annotation>",  # type: ignore[arg-type]
    "open": "<annotation>" * 1000,
    "large": " " * (8 << 20) + "<annotation/>",
    "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "nan": f"<annotation>{voc_object(1, 1, 9, float('nan'))}</annotation>",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_named_in_one_sentence(voc: VocFolder, text: str) -> None:
    path = voc.annotations / "a.xml"
    path.write_text(text)
    with pytest.raises(BrokenAnnotationError, match=r"a\.xml: ") as caught:
        read_voc_annotation(path)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_deep_elements_and_many_objects_are_read(voc: VocFolder) -> None:
    depth = 100_000
    path = voc.xml("a", "<x>" * depth + "</x>" * depth + voc_object(1, 1, 9, 9))
    assert len(read_voc_annotation(path).objects) == 1
    assert len(read_voc_annotation(voc.xml("a", voc_object(1, 1, 9, 9) * 5000)).objects) == 5000


def test_a_pipe_in_place_of_an_annotation_does_not_hang(voc: VocFolder) -> None:
    voc.pair("b")
    voc.image("a.jpg")
    os.mkfifo(voc.annotations / "a.xml")
    voc.list("trainval", "a\nb\n")
    voc.pair("z")
    assert "a named pipe" in load(voc).bad[0].reason


def test_a_list_that_leads_outside_finds_names_of_the_folder_only(voc: VocFolder) -> None:
    for stem in ("a", "b"):
        voc.pair(stem)
    voc.list("trainval", "/etc/passwd\n../../b.jpg\n")
    voc.list("test", "a\n")
    assert [entry.image_id for entry in VocSource(root=str(voc.root)).entries(Split.train)] == ["passwd", "b"]
    assert [record.image_id for record in load(voc).records] == ["b"]


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
    for wrong in ({"max_bad": 1.5}, {"test_share": 1.0}, {"classes": []}, {"classes": ["a", "a"]}):
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
    [("raccoon", (160, 173), (40, 44)), ("bccd", (292, 4886 - 945), (72, 945)), ("voc2012_100", (81, 214), (19, 59))],
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
