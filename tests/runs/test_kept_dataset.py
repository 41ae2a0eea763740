"""dataset.json: what a run folder remembers of its data set, and what is said if it can't be used."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from detpipe.class_path import load_class
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.csv_boxes import CsvSource
from detpipe.datasets.cvat import CvatSource
from detpipe.datasets.demo import DemoSource
from detpipe.datasets.formats import FORMATS, format_word
from detpipe.datasets.hugging_face import HuggingFaceSource
from detpipe.datasets.image_labels import ImageLabelsSource
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.label_studio import LabelStudioSource
from detpipe.datasets.labelme import LabelmeSource
from detpipe.datasets.open_images import OpenImagesSource
from detpipe.datasets.parquet import ParquetSource
from detpipe.datasets.source import DatasetSource
from detpipe.datasets.tar import TarSource
from detpipe.datasets.via import ViaSource
from detpipe.datasets.voc import VocSource
from detpipe.datasets.yolo import YoloSource
from detpipe.runs.command import Command
from detpipe.runs.kept_dataset import carry_dataset, keep_dataset, kept_dataset
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.dataclass_json import DataclassJsonError
from detpipe.structures import Stretch


def made(*paths: Path) -> list[str]:
    for path in paths:
        path.mkdir(parents=True)
    return [str(path) for path in paths]


def test_only_what_differs_from_the_defaults_is_written(tmp_path: Path) -> None:
    (root,) = made(tmp_path / "voc")
    keep_dataset(RunFolder(tmp_path), VocSource(root=root, train="trainval", test="held_out", classes=["b", "a"]))
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "dataset": "voc",
        "settings": {"root": root, "test": "held_out", "classes": ["b", "a"]} | not_default(train="trainval"),
    }


def not_default(train: str) -> dict[str, Any]:
    return {} if VocSource(root="x").train == train else {"train": train}


def test_relative_paths_work_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "here" / "a", tmp_path / "here" / "b", tmp_path / "there")
    monkeypatch.chdir(tmp_path / "here")
    keep_dataset(RunFolder(tmp_path), VocSource(root=["a", "b"]))
    monkeypatch.chdir(tmp_path / "there")
    found = kept_dataset(RunFolder(tmp_path))
    assert isinstance(found, VocSource)
    assert found.roots == [tmp_path / "here" / "a", tmp_path / "here" / "b"]


@pytest.mark.parametrize("word", FORMATS)
def test_every_format_is_read_back(word: str, tmp_path: Path) -> None:
    root, images = made(tmp_path / "root", tmp_path / "images")
    file = str(tmp_path / "dataset.json")  # any file
    sources: dict[str, DatasetSource] = {
        "voc": VocSource(root=root, split_file=file, test_share=0.5, stretch=Stretch.bits, max_bad=0.25),
        "coco": CocoSource(train_json=file, train_images=images, classes=["one"], split_seed=3),
        "images": ImageFolderSource(root=root, outside=True, max_pixels=99),
        "yolo": YoloSource(root=root, split_seed=4),
        "image_labels": ImageLabelsSource(root=root, labels=file, detections=file, group=1, categories=["1", "animal"]),
        "csv": CsvSource(root=file, test_file=file, images_root=images, encoding="gb18030"),
        "openimages": OpenImagesSource(root=file, names_file=file),
        "labelstudio": LabelStudioSource(root=file, images_root=images),
        "cvat": CvatSource(root=file, val_file=file),
        "labelme": LabelmeSource(root=root),
        "imagefolder": HuggingFaceSource(root=root),
        "via": ViaSource(root=file, images_root=images),
        "tar": TarSource(root=root, outside=True),
        "parquet": ParquetSource(root=file, split_seed=5),
        "demo": DemoSource(root=str(tmp_path / "not made yet"), train_images=3),
    }
    keep_dataset(RunFolder(tmp_path), sources[word])
    assert kept_dataset(RunFolder(tmp_path)) == sources[word]


def test_every_setting_that_sounds_like_a_path_is_one() -> None:
    for path in FORMATS.values():
        kind = load_class(path)
        assert format_word(kind) is not None
        types = {field.name: str(field.type) for field in fields(kind)}
        suffixes = ("_json", "_images", "_file", "root", "labels", "detections")
        assert {name for name in types if name.endswith(suffixes) and types[name] != "int"} == set(kind.PATHS)


def test_the_last_one_given_is_kept_and_an_equal_one_is_not_written_again(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one", tmp_path / "two")
    folder = RunFolder(tmp_path)
    keep_dataset(folder, VocSource(root=one))
    before = folder.dataset.stat()
    keep_dataset(folder, VocSource(root=one))
    assert (folder.dataset.stat().st_mtime_ns, folder.dataset.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    keep_dataset(folder, VocSource(root=two))
    assert kept_dataset(folder) == VocSource(root=two)


def test_a_format_of_somebody_else_is_not_kept(tmp_path: Path) -> None:
    @dataclass(kw_only=True)
    class Own(VocSource):
        """A user's own format."""

    (root,) = made(tmp_path / "voc")
    keep_dataset(RunFolder(tmp_path), VocSource(root=root))
    keep_dataset(RunFolder(tmp_path), Own(root=root))
    assert kept_dataset(RunFolder(tmp_path)) is None


def test_the_settings_of_a_command_win(tmp_path: Path) -> None:
    kept, given = made(tmp_path / "kept", tmp_path / "given")
    keep_dataset(RunFolder(tmp_path), VocSource(root=kept))
    assert Command(run_dir=str(tmp_path)).data_source == VocSource(root=kept)
    assert Command(run_dir=str(tmp_path), dataset=VocSource(root=given)).data_source == VocSource(root=given)


def test_it_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root,) = made(tmp_path / "voc")
    keep_dataset(RunFolder(tmp_path), VocSource(root=root, test="held_out"))
    config = Command(run_dir=str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert config.data_source is config.data_source
    (line,) = [one for one in caplog.messages if "data set" in one]
    assert f"dataset=voc dataset.root={root} dataset.test=held_out" in line


def test_a_folder_that_remembers_none(tmp_path: Path) -> None:
    assert kept_dataset(RunFolder(tmp_path)) is None
    with pytest.raises(ValueError, match=r"give dataset\.root=DIR"):
        _ = Command(run_dir=str(tmp_path)).data_source


def test_data_that_was_moved(tmp_path: Path) -> None:
    (root,) = made(tmp_path / "voc")
    keep_dataset(RunFolder(tmp_path), VocSource(root=root))
    (tmp_path / "voc").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: .*dataset\.root=.*; give dataset=voc dataset\.root="):
        kept_dataset(RunFolder(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"dataset": "voc"}',
        '{"dataset": "pascal", "settings": {}}',
        '{"dataset": "voc", "settings": {}}',
        '{"dataset": "voc", "settings": {"root": 3}}',
        '{"dataset": "voc", "settings": {"root": "x", "test": 3}}',
        '{"dataset": "voc", "settings": {"root": "x", "unknown": 3}}',
        '{"dataset": "images", "settings": {"root": ["x"]}}',
    ],
)
def test_a_damaged_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataclassJsonError, match=r"dataset\.json: .*; give dataset\.root=DIR"):
        kept_dataset(RunFolder(tmp_path))
    # A data set that is given replaces the file.
    keep_dataset(RunFolder(tmp_path), ImageFolderSource(root=str(tmp_path)))
    assert kept_dataset(RunFolder(tmp_path)) == ImageFolderSource(root=str(tmp_path))


def test_it_is_carried_to_another_folder(tmp_path: Path) -> None:
    (root,) = made(tmp_path / "voc")
    old, new, empty = RunFolder(tmp_path), RunFolder(tmp_path / "new"), RunFolder(tmp_path / "empty")
    keep_dataset(old, VocSource(root=root))
    carry_dataset(old, new)
    assert kept_dataset(new) == VocSource(root=root)
    carry_dataset(empty, new)  # remembers none: the other stays
    assert kept_dataset(new) == VocSource(root=root)
