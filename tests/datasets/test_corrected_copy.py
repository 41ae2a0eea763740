"""Corrected copies of whole data sets: the same without edits, the lists of classes, and what is never written to."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.auto import recognised_source
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.corrected_copy import (
    CopiedImages,
    annotated_source,
    free_names,
    source_folders,
    write_corrected_copy,
)
from detpipe.datasets.demo import DemoSource
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.labelme import LabelmeSource
from detpipe.datasets.object_edits import NewImage, ObjectEdit
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.yolo import YoloSource
from tests import drawn
from tests.datasets.conftest import VocFolder
from tests.datasets.other_formats import image


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def loaded(source: DatasetSource) -> dict[str, Any]:
    """All that a source tells of its images, without their paths."""
    return {
        split.value: [(one.image_id, one.objects, one.image is None or one.image.read_bytes()) for one in entries]
        for split in Split
        if source.has(split) and (entries := source.entries(split)) is not None
    }


def copied(source: DatasetSource, out: Path, images: CopiedImages = CopiedImages.link) -> DatasetSource:
    return write_corrected_copy(source, out, {}, images)


@pytest.mark.parametrize("images", list(CopiedImages))
def test_a_copy_of_a_voc_folder_has_the_same_files(voc_root: Path, tmp_path: Path, images: CopiedImages) -> None:
    source = VocSource(root=str(voc_root))
    copy = copied(source, tmp_path / "out", images)
    assert contents(tmp_path / "out") == contents(voc_root)
    assert loaded(copy) == loaded(source)
    names = [path.relative_to(voc_root) for path in voc_root.rglob("*") if path.is_file()]
    same = {name for name in names if (voc_root / name).samefile(tmp_path / "out" / name)}
    wanted = {name for name in names if name.suffix == ".jpg"} if images is CopiedImages.link else set()
    assert same == wanted


def test_without_links_images_are_copied(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    copied(VocSource(root=str(voc_root)), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(voc_root)


def test_other_layouts_stay_as_they_are(voc: VocFolder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        voc.pair(name)
    shutil.rmtree(voc.lists.parent)
    split = tmp_path / "split"
    for folder, name in (("train", "a"), ("valid", "b")):
        (split / folder).mkdir(parents=True)
        shutil.copy(voc.images / f"{name}.jpg", split / folder)
        shutil.copy(voc.annotations / f"{name}.xml", split / folder)
    beside = tmp_path / "beside"
    beside.mkdir()
    for path in (*voc.images.iterdir(), *voc.annotations.iterdir()):
        shutil.copy(path, beside)
    (beside / "broken.xml").write_text("<annotation>")
    (beside / "notes.md").write_text("not part of the data set")
    for number, roots in enumerate(([voc.root], [split], [beside], [voc.root, beside])):
        many = [str(root) for root in roots]
        source = VocSource(root=many if len(many) > 1 else many[0], max_bad=1.0)
        assert loaded(copied(source, tmp_path / f"out{number}")) == loaded(source)
    assert not (tmp_path / "out2" / "notes.md").exists()


def test_images_outside_of_the_folder_come_in(voc: VocFolder, tmp_path: Path) -> None:
    voc.pair("a")
    picture = voc.image("b.jpg").rename(tmp_path / "elsewhere.jpg")
    voc.xml("b", "", before=f"<filename>{picture}</filename>")
    source = VocSource(root=str(voc.root), outside=True, max_bad=1.0)
    copy = copied(source, tmp_path / "out")
    assert loaded(copy) == loaded(source)
    assert (tmp_path / "out" / "JPEGImages" / "b.jpg").is_file()


def test_lists_of_one_class_follow_the_objects(voc: VocFolder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        voc.pair(name)
    for name, flags in (("cat", "1 1"), ("dog", "-1 -1"), ("cat_nap", "-1 -1")):
        first, second = flags.split()
        voc.list(f"{name}_train", f"a {first:>2}\nb {second:>2}\n")
    voc.list("train", "a\n")
    voc.list("val", "b\n")
    source = VocSource(root=str(voc.root))
    entry = source.entries(Split.train)[0]
    edits = {(entry.origin, entry.image_id): [ObjectEdit(index=0, name="dog")]}
    write_corrected_copy(source, tmp_path / "out", edits, CopiedImages.link)
    lists = tmp_path / "out" / "ImageSets" / "Main"
    assert (lists / "cat_train.txt").read_text() == "a -1\nb  1\n"
    assert (lists / "dog_train.txt").read_text() == "a  1\nb -1\n"
    assert (lists / "cat_nap_train.txt").read_text() == "a -1\nb -1\n"
    assert (voc.lists / "cat_train.txt").read_text() == "a  1\nb  1\n"


def test_a_new_image_joins_the_lists_of_training_images(voc: VocFolder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        voc.pair(name)
    for name in ("cat", "dog"):
        voc.list(f"{name}_train", "a  1")
        voc.list(f"{name}_val", "b  1\n")
    picture = voc.image("new.jpg").rename(tmp_path / "new.jpg")
    added = NewImage(path=picture, name="new", image_size=(20, 30), objects=(ObjectEdit(name="cat", box=(1, 2, 9, 9)),))
    copy = write_corrected_copy(VocSource(root=str(voc.root)), tmp_path / "out", {}, CopiedImages.link, [added])
    assert [one.image_id for one in copy.entries(Split.train)] == ["a", "new"]
    lists = tmp_path / "out" / "ImageSets" / "Main"
    assert [(lists / f"{name}_train.txt").read_text() for name in ("cat", "dog")] == [
        "a  1\nnew  1\n",
        "a  1\nnew -1\n",
    ]
    assert (lists / "cat_val.txt").read_text() == "b  1\n"


@pytest.mark.parametrize("file", ["", "data.yaml"])
def test_a_copy_of_a_yolo_folder(tmp_path: Path, file: str) -> None:
    root = tmp_path / "set"
    drawn.write_yolo(root)
    source = YoloSource(root=str(root / file))
    copy = copied(source, tmp_path / "same")
    assert contents(tmp_path / "same") == contents(root)
    assert loaded(copy) == loaded(source)
    first, second = source.entries(Split.train)[:2]
    edits = {
        (first.origin, first.image_id): [
            ObjectEdit(index=0, name="square"),
            ObjectEdit(name="disc", box=(1, 2, 41, 32)),
        ],
        (second.origin, second.image_id): [ObjectEdit(index=1, is_removed=True)],
    }
    drawn.write_jpeg(tmp_path / "new.jpg", drawn.draw(99)[0])
    new = NewImage(
        path=tmp_path / "new.jpg",
        name="new",
        image_size=(120, 160),
        objects=(ObjectEdit(name="disc", box=(8, 6, 88, 66)),),
    )
    corrected = write_corrected_copy(source, tmp_path / "out", edits, CopiedImages.link, [new])
    found = {entry.image_id: entry.objects for entry in corrected.entries(Split.train)}
    assert [one.name for one in found[first.image_id]] == ["square", "square", "disc"]
    assert found[first.image_id][2].box == pytest.approx((1, 2, 41, 32))
    assert found[second.image_id] == second.objects[:1]
    (added,) = found["new"]
    assert added.name == "disc"
    assert added.box == pytest.approx((8, 6, 88, 66))
    assert loaded(source) == loaded(YoloSource(root=str(root)))  # the original stays
    birds = {(first.origin, first.image_id): [ObjectEdit(index=0, name="bird")]}
    with pytest.raises(ValueError, match="'bird'"):
        write_corrected_copy(source, tmp_path / "birds", birds, CopiedImages.link)


def test_a_copy_of_yolo_lists_with_absolute_paths(tmp_path: Path) -> None:
    root = tmp_path / "set"
    drawn.write_yolo(root)
    for split in ("train", "test"):
        paths = sorted((root / "images" / split).iterdir())
        (root / f"{split}.txt").write_text("".join(f"{path}\n" for path in paths))
    (root / "data.yaml").write_text(f"path: {root}\ntrain: train.txt\ntest: test.txt\nnames: [disc, square]\n")
    source = YoloSource(root=str(root))
    drawn.write_jpeg(tmp_path / "new.jpg", drawn.draw(99)[0])
    new = NewImage(path=tmp_path / "new.jpg", name="new", image_size=(120, 160), objects=())
    copy = write_corrected_copy(source, tmp_path / "part", {}, CopiedImages.copy, [new])
    # As `labels apply` does; the original stays, and no path may lead back to it.
    (tmp_path / "part").rename(tmp_path / "out")
    assert isinstance(copy, YoloSource)
    copy = replace(copy, root=str(tmp_path / "out"))
    ids = [entry.image_id for entry in copy.entries(Split.train)]
    assert set(ids) == {*drawn.TRAIN, "new"}
    images = [entry.image for entry in copy.entries(Split.train)]
    assert all(path is not None and path.is_relative_to(tmp_path / "out") for path in images)


@pytest.mark.parametrize("kind", ["voc", "yolo", "csv"])
def test_a_data_set_in_the_folder_of_an_archive(tmp_path: Path, kind: str) -> None:
    inner = tmp_path / "outer" / "my project"
    for split, name in (("train", "a"), ("valid", "b")):
        image(inner / split / f"{name}.jpg")
        if kind == "voc":
            box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>12</ymax></bndbox>"
            (inner / split / f"{name}.xml").write_text(
                f"<annotation><object><name>cat</name>{box}</object></annotation>"
            )
        elif kind == "yolo":
            (inner / split / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
        else:
            (inner / split / "_annotations.csv").write_text(f"{name}.jpg,1,2,9,12,cat\n")
    (inner / "data.yaml").write_text("train: train\nval: valid\nnames: [cat]\n")
    if kind != "yolo":
        (inner / "data.yaml").unlink()
    source = recognised_source(tmp_path / "outer")
    added = (ObjectEdit(name="cat", box=(1, 2, 9, 12)),)
    new = NewImage(path=image(tmp_path / "new.jpg"), name="new", image_size=(20, 40), objects=added)
    copy = write_corrected_copy(source, tmp_path / "out", {}, CopiedImages.copy, [new])
    again = recognised_source(tmp_path / "out")
    for one in (copy, again):
        assert sorted(str(entry.image_id).rpartition("/")[2] for entry in one.entries(Split.train)) == ["a", "new"]
        assert len(one.load(Split.test)) == 1


def test_formats_without_copies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"openimages or demo.*labelme.*detpipe convert"):
        annotated_source(LabelmeSource(root=str(tmp_path)))


def test_free_names_are_those_of_no_image(voc: VocFolder) -> None:
    voc.pair("a")
    free = free_names(VocSource(root=str(voc.root)))
    assert [free(name) for name in ("b.jpg", "A.png", "x/a.jpg", "x/b.jpg", "x/b.png")] == [
        "b",
        "A_2",
        "x_a",
        "x_b",
        "x_b_2",
    ]


def coco_settings(folder: Path, voc_root: Path) -> dict[str, str]:
    words = drawn.write_coco(folder, voc_root)
    return dict(word.removeprefix("dataset.").split("=", 1) for word in words[1:])


def test_a_copy_of_coco_files_has_the_same_files(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    source = CocoSource(**coco_settings(tmp_path / "set", voc_root))  # type: ignore[arg-type]
    copy = copied(source, tmp_path / "out")
    assert loaded(copy) == loaded(source)
    assert isinstance(copy, CocoSource)
    for one, other in ((source.train_json, copy.train_json), (source.test_json, copy.test_json)):
        assert one is not None
        assert other is not None
        assert Path(one).read_bytes() == Path(other).read_bytes()


def test_one_coco_file_that_is_divided_by_name_stays_divided(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    settings = coco_settings(tmp_path / "set", voc_root)
    source = CocoSource(train_json=settings["train_json"], train_images=settings["train_images"])
    first = source.entries(Split.test)[0]
    edits = {(first.origin, first.image_id): [ObjectEdit(index=0, is_removed=True), ObjectEdit(index=1, name="cow")]}
    copy = write_corrected_copy(source, tmp_path / "out", edits, CopiedImages.link)
    assert [one.image_id for one in copy.entries(Split.test)] == [one.image_id for one in source.entries(Split.test)]
    assert [one.name for one in copy.entries(Split.test)[0].objects] == ["cow"]
    assert copy.entries(Split.train)[0].objects == source.entries(Split.train)[0].objects
    assert json.loads(Path(settings["train_json"]).read_bytes())["categories"] == [
        {"id": number, "name": name} for name, number in drawn.COCO_IDS.items()
    ]


def test_the_demo_becomes_a_voc_folder(tmp_path: Path) -> None:
    source = DemoSource(root=str(tmp_path / "demo"), train_images=2, test_images=1)
    copy = copied(source, tmp_path / "out")
    assert isinstance(copy, VocSource)
    assert loaded(copy) == loaded(source)


def test_a_folder_of_images_has_no_boxes_to_correct(voc_root: Path) -> None:
    with pytest.raises(ValueError, match=r"voc, coco, yolo, .* or demo.*images"):
        annotated_source(ImageFolderSource(root=str(voc_root)))


def test_the_folders_of_a_data_set(voc_root: Path, tmp_path: Path) -> None:
    assert voc_root in source_folders(VocSource(root=str(voc_root)))
    (tmp_path / "set").mkdir()
    settings = coco_settings(tmp_path / "set", voc_root)
    folders = source_folders(CocoSource(**settings))  # type: ignore[arg-type]
    assert {Path(settings["train_json"]).parent, Path(settings["train_images"])} <= set(folders)
