from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detpipe.datasets.auto import AutoSource, UnknownFormatError, find_reading, formats_with, recognised_source
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from tests.datasets.conftest import VocFolder
from tests.datasets.test_coco_folder import coco


def test_a_voc_folder(voc: VocFolder, caplog: pytest.LogCaptureFixture) -> None:
    voc.pair("a")
    voc.pair("b")
    reading = find_reading(voc.root)
    assert (reading.word, reading.settings) == ("voc", {"root": str(voc.root)})
    assert reading.why.startswith("VOC: 2 XML files in Annotations, images in JPEGImages")
    with caplog.at_level(logging.INFO):
        source = recognised_source(voc.root, max_bad=0.5)
    assert source == VocSource(root=str(voc.root), max_bad=0.5)
    assert len(caplog.records) == 1
    assert f"read as dataset=voc dataset.root={voc.root}" in caplog.text


def test_xml_of_another_program_is_not_voc(voc: VocFolder) -> None:
    (voc.annotations / "all.xml").write_text("<annotations><image id='0'/></annotations>")
    assert VocSource.recognise(voc.root) is None
    assert VocSource.recognise(voc.annotations / "all.xml") is None
    (voc.annotations / "b.xml").write_bytes("<annotation></annotation>".encode("utf-16"))
    assert VocSource.recognise(voc.root) is not None


def test_voc_in_a_folder_for_each_split(voc: VocFolder) -> None:
    voc.pair("a")
    (voc.root / "top").mkdir()
    for name in ("train", "valid"):
        target = voc.root / "top" / name
        target.mkdir()
        (target / "a.xml").write_bytes((voc.annotations / "a.xml").read_bytes())
        (target / "a.jpg").write_bytes((voc.images / "a.jpg").read_bytes())
    assert find_reading(voc.root / "top").why == "VOC: 2 XML files in train (train), valid (val)"


def test_images_alone(voc: VocFolder) -> None:
    path = voc.image("a.jpg")
    assert find_reading(voc.images).source({}) == ImageFolderSource(root=str(voc.images))
    assert find_reading(voc.images).why == "1 image without boxes"
    assert find_reading(path).source({}) == ImageFolderSource(root=str(path))


def test_two_formats_are_refused_with_the_words_to_type(voc: VocFolder) -> None:
    voc.pair("a")
    coco(voc.root / "instances.json", "a.jpg")
    with pytest.raises(UnknownFormatError, match=r"2 formats fit.*dataset=voc.*dataset=coco"):
        find_reading(voc.root)
    assert find_reading(voc.root, ["encoding"]).word == "voc"  # a setting of one of them decides
    assert find_reading(voc.root, ["test_json"]).word == "coco"


def test_a_setting_that_the_format_lacks(voc: VocFolder) -> None:
    voc.pair("a")
    with pytest.raises(UnknownFormatError, match=r"dataset\.train_json: .*dataset=voc has no train_json"):
        find_reading(voc.root, ["train_json"])


def test_a_format_that_cannot_choose(tmp_path: Path) -> None:
    coco(tmp_path / "instances_train2014.json")
    coco(tmp_path / "instances_train2017.json")
    with pytest.raises(UnknownFormatError, match=r"dataset\.train_json="):
        find_reading(tmp_path)


def test_data_sets_in_the_folder_are_named(voc: VocFolder, tmp_path: Path) -> None:
    voc.pair("a")
    for inner in ("one", "two"):
        (tmp_path / "top" / inner).mkdir(parents=True)
    coco(tmp_path / "top/two/deep/er/instances.json")
    (tmp_path / "top/one/set").symlink_to(voc.root)
    with pytest.raises(UnknownFormatError, match=r"give dataset\.root=.*top/two"):
        find_reading(tmp_path / "top")


@pytest.mark.parametrize("name", ["a.txt", None])
def test_nothing(tmp_path: Path, name: str | None) -> None:
    if name is not None:
        (tmp_path / name).write_text("no data set")
        with pytest.raises(UnknownFormatError, match=r"a\.txt: expected a data set, got a file"):
            find_reading(tmp_path / name)
    with pytest.raises(UnknownFormatError, match=f"got a folder with {name or 'nothing'}"):
        find_reading(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        find_reading(tmp_path / "missing")


def test_as_settings(voc: VocFolder) -> None:
    voc.pair("a")
    auto = AutoSource(root=str(voc.root), max_bad=0.5)
    assert auto.found() == VocSource(root=str(voc.root), max_bad=0.5)
    assert auto.has(Split.train)
    assert auto.known_classes() == ["cat"]


def test_formats_with_settings() -> None:
    assert formats_with(["train_json"]) == ["coco"]
    assert "voc" in formats_with([])
    assert formats_with(["no_such_setting"]) == []


def test_real_data(shared_data: Path) -> None:
    for name in ("raccoon", "cards", "bccd", "voc2012_100"):
        assert isinstance(recognised_source(shared_data / name), VocSource)
    source = recognised_source(shared_data / "coco_val")
    assert isinstance(source, CocoSource)
    assert len(source.load(Split.train)) + len(source.load(Split.test)) == 164
    assert isinstance(recognised_source(shared_data / "imagenet_sample"), ImageFolderSource)
