"""voc_folder: the layouts of folders that people have."""

from __future__ import annotations

import logging
import shutil
import unicodedata
from pathlib import Path

import PIL.Image
import pytest

from detpipe.datasets.check import check_source
from detpipe.datasets.exif_boxes import ExifBoxes
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from tests.datasets.conftest import VocFolder


def folder_of(root: Path, *names: str) -> Path:
    """A folder with empty images and annotations without objects, by their relative paths."""
    drawn = VocFolder(root.parent / f".{root.name} drawn")
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".xml":
            shutil.copy(drawn.annotation("a"), path)
            path.write_text(path.read_text().replace("a.jpg", f"{path.stem}.jpg"))
        else:
            shutil.copy(drawn.image("a.jpg"), path)
    return root


def splits(root: Path | list[Path], **settings: object) -> dict[str, list[object]]:
    roots = [str(one) for one in root] if isinstance(root, list) else str(root)
    source = VocSource(root=roots, **settings)  # type: ignore[arg-type]
    return {
        split.value: [record.image_id for record in source.load(split).records] for split in Split if source.has(split)
    }


def all_ids(root: Path | list[Path], **settings: object) -> list[object]:
    return sorted(map(str, (one for ids in splits(root, **settings).values() for one in ids)))


def test_a_folder_around_the_data_set(tmp_path: Path) -> None:
    files = [
        f"{split}/{name}{suffix}" for split, name in (("train", "a"), ("valid", "b")) for suffix in (".jpg", ".xml")
    ]
    folder_of(tmp_path / "outer" / "inner", *files)
    (tmp_path / "outer" / "inner.zip").write_text("PK")
    assert splits(tmp_path / "outer") == {"train": ["a"], "test": ["b"]}
    folder_of(tmp_path / "VOCdevkit" / "VOC2007", "Annotations/c.xml", "JPEGImages/c.jpg")
    assert splits(tmp_path / "VOCdevkit", test_share=0.0) == {"train": ["c"]}


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("Annotations", "JPEGImages"),
        ("annotations", "images"),
        ("ANNOTATIONS", "Images"),
        ("Annotation", "image"),
        ("annotations/xmls", "images"),
        ("xml", "img"),
        ("xml_files", "pictures"),
        ("Annotations/deep/er", "JPEGImages/deep/er"),
        ("Annotations", "JPEGImages/deep"),
        (".", "images"),
        (".", "."),
        ("sub", "sub"),
    ],
)
def test_layouts(tmp_path: Path, annotations: str, images: str) -> None:
    files = [name for one in "ab" for name in (f"{annotations}/{one}.xml", f"{images}/{one}.jpg")]
    root = folder_of(tmp_path / "set", *files)
    assert all_ids(root) == ["a", "b"]


def test_equal_names_in_subfolders_get_their_paths(tmp_path: Path) -> None:
    names = [f"{top}/{name}" for top in ("Annotations", "JPEGImages") for name in ("cats/1", "dogs/1", "dogs/2")]
    root = folder_of(tmp_path / "set", *(f"{one}{'.xml' if one[0] == 'A' else '.jpg'}" for one in names))
    source = VocSource(root=str(root))
    entries = [entry for split in Split if source.has(split) for entry in source.entries(split)]
    paths = {entry.image_id: entry.image.relative_to(root).as_posix() for entry in entries if entry.image}
    assert paths == {"cats/1": "JPEGImages/cats/1.jpg", "dogs/1": "JPEGImages/dogs/1.jpg", "2": "JPEGImages/dogs/2.jpg"}


@pytest.mark.parametrize(
    "form", ["{split}/{name}", "{split}/{kind}/{name}", "{kind}/{split}/{name}", "{Split}/{name}"], ids=str
)
def test_a_folder_for_each_split(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    def path(split: str, name: str) -> str:
        kind = "annotations" if name.endswith(".xml") else "images"
        return form.format(split=split, Split=split.title(), kind=kind, name=name)

    names = {"train": ("a", "b"), "valid": ("c", "x"), "test": ("d", "x")}
    root = folder_of(
        tmp_path / "set",
        *(
            path(split, f"{one}{suffix}")
            for split, some in names.items()
            for one in some
            for suffix in (".xml", ".jpg")
        ),
    )
    with caplog.at_level(logging.INFO):
        found = splits(root)
    test, valid = (one.title() if "{Split}" in form else one for one in ("test", "valid"))
    assert found == {"train": ["a", "b"], "val": ["c", f"{valid}/x"], "test": ["d", f"{test}/x"]}
    assert "train is the folder of this name" in caplog.text


def test_without_test_folder_valid_is_test_and_without_both_names_decide(tmp_path: Path) -> None:
    names = ("train/a", "train/b", "valid/c")
    root = folder_of(tmp_path / "set", *(f"{one}{suffix}" for one in names for suffix in (".xml", ".jpg")))
    assert splits(root) == {"train": ["a", "b"], "test": ["c"]}
    shutil.rmtree(root / "valid")
    assert all_ids(root) == ["a", "b"]
    assert VocSource(root=str(root)).automatic_split() is not None


def test_several_roots_are_one_set(tmp_path: Path) -> None:
    first, second = VocFolder(tmp_path / "VOC2007"), VocFolder(tmp_path / "VOC2012")
    for folder, stems in ((first, "abx"), (second, "cdx")):
        for stem in stems:
            folder.pair(stem)
    first.list("trainval", "a\nx\n")
    first.list("test", "b\n")
    second.list("trainval", "c\nd\nx\n")
    found = splits([first.root, second.root])
    assert found == {"train": ["a", "VOC2007/x", "c", "d", "VOC2012/x"], "test": ["b"]}
    assert VocSource(root=[str(first.root), str(second.root)]).title(Split.train) == "VOC2007+VOC2012 train"
    with pytest.raises(ValueError, match=r"dataset\.root: expected different folders"):
        splits([first.root, first.root])


def test_a_root_without_lists_beside_one_with_lists_is_split_by_name(tmp_path: Path) -> None:
    first, second = VocFolder(tmp_path / "1" / "set"), VocFolder(tmp_path / "2" / "set")
    for stem in "ab":
        first.pair(stem)
    for stem in "axyz":
        second.pair(stem)
    first.list("mine", "a\n")
    first.list("test", "b\n")
    found = splits([first.root, second.root], train="mine", test_share=0.5)
    assert found["train"][0] == "1/set/a"
    assert sorted(map(str, found["train"] + found["test"])) == ["1/set/a", "2/set/a", "b", "x", "y", "z"]


def test_a_folder_of_voc_folders_names_the_setting(tmp_path: Path) -> None:
    for name in ("VOC2007", "VOC2012"):
        VocFolder(tmp_path / "kit" / name).pair("a")
    with pytest.raises(FileNotFoundError, match=r"set dataset\.root=\[.*VOC2007,.*VOC2012\]"):
        splits(tmp_path / "kit")


def test_a_list_without_annotations_is_a_split_to_detect_on(voc: VocFolder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    voc.pair("a")
    for name in ("t.jpg", "u.jpg"):
        voc.image(name)
    voc.list("trainval", "a\n")
    voc.list("test", "t\nu\n")
    source = VocSource(root=str(voc.root))
    test = source.load(Split.test)
    assert [record.image_id for record in test.records] == ["t", "u"]
    assert test.ground_truth is None
    assert "no image of test has an XML file, it is a split to detect on" in caplog.text
    assert source.load(Split.train).ground_truth is not None
    assert check_source(source).counts == {}
    voc.annotation("t")
    again = VocSource(root=str(voc.root), max_bad=1).load(Split.test)
    assert [record.image_id for record in again.records] == ["t"]
    assert "image without XML" in again.bad[0].reason


def test_images_and_lists_without_any_annotation(voc: VocFolder) -> None:
    voc.image("t.jpg")
    voc.annotations.rmdir()
    voc.list("test", "t\n")
    assert VocSource(root=str(voc.root)).load(Split.test).ground_truth is None


def test_hidden_files_are_passed_over(voc: VocFolder) -> None:
    for stem in "ab":
        voc.pair(stem)
    (voc.annotations / "._a.xml").write_bytes(b"\0\5\26\7")
    (voc.images / "._a.jpg").write_bytes(b"\0\5\26\7")
    (voc.images / ".ipynb_checkpoints").mkdir()
    shutil.copy(voc.images / "a.jpg", voc.images / ".ipynb_checkpoints" / "a.jpg")
    (voc.root / "__MACOSX" / "Annotations").mkdir(parents=True)
    assert all_ids(voc.root) == ["a", "b"]
    assert check_source(VocSource(root=str(voc.root))).counts == {}


def test_pictures_that_are_not_read_are_counted(voc: VocFolder, caplog: pytest.LogCaptureFixture) -> None:
    for stem in "abc":
        voc.pair(stem)
    (voc.images / "a.jpg").rename(voc.images / "a.heic")
    (voc.images / "d.avif").write_bytes(b"x")
    source = VocSource(root=str(voc.root), max_bad=1)
    found = check_source(source).findings
    assert {one.kind: one.detail for one in found if one.kind == "passed_over"}
    assert any(one.kind == "missing_image" and "a.heic is not read" in one.detail for one in found)
    assert "passed over 1 (a.heic)" in caplog.text


def test_layout_folders_may_be_links_and_others_not(voc: VocFolder, tmp_path: Path) -> None:
    for stem in "ab":
        voc.pair(stem)
    shutil.move(voc.images, tmp_path / "disk")
    voc.images.symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(voc.root)
    assert all_ids(tmp_path / "link") == ["a", "b"]
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "disk" / "a.jpg", tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "disk" / "a.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    found = check_source(VocSource(root=str(voc.root), max_bad=1)).findings
    assert ("outside_image", True) in [(one.kind, "dataset.outside=true" in one.detail) for one in found]
    assert all_ids(voc.root, outside=True) == ["a", "b"]


def test_links_of_annotations_that_leave_are_named(voc: VocFolder, tmp_path: Path) -> None:
    for stem in "ab":
        voc.pair(stem)
    (voc.annotations / "a.xml").rename(tmp_path / "a.xml")
    (voc.annotations / "a.xml").symlink_to(tmp_path / "a.xml")
    found = check_source(VocSource(root=str(voc.root), test_share=0)).findings
    assert [one.kind for one in found if "dataset.outside=true" in one.detail] == ["passed_over"]
    assert all_ids(voc.root, outside=True) == ["a", "b"]


def test_boxes_on_the_pixels_before_exifs_rotation(voc: VocFolder) -> None:
    voc.annotation("a", boxes=((2, 3, 12, 13),))  # it states 30 x 20
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.new("RGB", (30, 20)).save(voc.images / "a.jpg", exif=exif)
    source = {"root": str(voc.root), "test_share": 0.0}
    truth = VocSource(**source).load(Split.train).ground_truth  # type: ignore[arg-type]
    assert truth is not None
    assert truth["a"].boxes.tolist() == [[20 - 13, 2, 20 - 3, 12]]
    truth = VocSource(**source, exif_boxes=ExifBoxes.upright).load(Split.train).ground_truth  # type: ignore[arg-type]
    assert truth is not None
    assert truth["a"].boxes.tolist() == [[2, 3, 12, 13]]


def test_other_normal_forms_of_a_name(voc: VocFolder) -> None:
    composed, decomposed = (unicodedata.normalize(form, "\xfcbung") for form in ("NFC", "NFD"))
    for xml, image in ((composed, decomposed), (f"{decomposed}2", f"{composed}2")):
        voc.image("x.jpg").rename(voc.images / f"{image}.jpg")
        voc.annotation(xml)
    voc.list("trainval", f"{decomposed}\n{composed}2\n")
    entries = VocSource(root=str(voc.root), test_share=0).entries(Split.train)
    assert [entry.image.stem for entry in entries if entry.image] == [decomposed, f"{composed}2"]
    assert all(entry.notes == () for entry in entries)
