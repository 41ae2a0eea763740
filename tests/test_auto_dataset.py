from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.auto_dataset import with_format
from detpipe.datasets.voc import VocSource
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe
from tests.datasets.test_coco_folder import coco
from tests.test_conf import made


def words(*typed: str, lenient: bool = False) -> list[str]:
    return with_format(typed, lenient=lenient)[0]


@pytest.mark.parametrize("auto", [[], ["dataset=auto"]])
def test_the_format_is_named(voc_root: Path, auto: list[str]) -> None:
    typed = ["seed=3", *auto, f"dataset.root={voc_root}", "dataset.max_bad=0.5"]
    assert words(*typed) == ["dataset=voc", f'dataset.root="{voc_root}"', "seed=3", "dataset.max_bad=0.5"]
    _, note = with_format(typed)
    assert "VOC: " in note
    assert f"dataset=voc dataset.root={voc_root}" in note


def test_settings_of_the_found_format(tmp_path: Path) -> None:
    path = coco(tmp_path / "instances.json")
    found = words(f"dataset.root={tmp_path}", "dataset.train_images=elsewhere")
    assert found == ["dataset=coco", f'dataset.train_json="{path}"', "dataset.train_images=elsewhere"]
    assert words("dataset.train_json=a", "dataset.train_images=b")[0] == "dataset=coco"  # no other format has them


def test_words_that_stay(voc_root: Path) -> None:
    for typed in ([], ["dataset=voc", "dataset.root=a"], ["dataset=null"], ["--cfg", "dataset.root=a"], ["seed=1"]):
        assert words(*typed) == typed


def test_a_preset_that_chooses_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /dataset: demo\n")
    typed = ["--config-dir", str(tmp_path), "experiment=mine", "dataset.root=a"]
    assert words(*typed) == typed
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nseed: 3\n")
    with pytest.raises(FileNotFoundError):
        words(*typed)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["dataset=auto"], r"dataset=auto: .*give dataset\.root=DIR"),
        (["dataset.max_bad=0.5"], r"dataset\.max_bad: .*give dataset\.root=DIR"),
        (["dataset.root=[a,b]"], r"dataset\.root=\[a,b\]: .*dataset=voc"),
        (["dataset.root=${run_dir}"], r"dataset\.root=.*dataset=voc"),
        (["dataset.root=a,b", "-m"], r"dataset\.root=a,b: .*dataset=voc"),
    ],
)
def test_what_is_not_one_folder(typed: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        words(*typed)


def test_help_needs_no_folder() -> None:
    for root in ("/nowhere", "nosuch://bucket/set"):
        assert words(f"dataset.root={root}", lenient=True) == ["dataset=auto", f"dataset.root={root}"]
    assert detpipe("run", "dataset.root=/nowhere", "--help").status == 0


def test_a_preset_of_auto_is_replaced(voc_root: Path) -> None:
    assert made("check", "dataset=auto", f"dataset.root={voc_root}").dataset == VocSource(root=str(voc_root))


def test_the_run_folder_remembers_the_format(voc_root: Path, tmp_path: Path) -> None:
    named, found = tmp_path / "named", tmp_path / "found"
    small = drawn.settings("propose", "proposals=uniform", "proposals.max_proposals=5")
    small = [one for one in small if not one.startswith(("proposals.preset", "proposals.max_side"))]
    assert detpipe("propose", *drawn.voc(voc_root), f"run_dir={named}", *small).status == 0
    outcome = detpipe("propose", f"dataset.root={voc_root}", f"run_dir={found}", *small)
    assert outcome.status == 0
    assert "VOC: " in outcome.err
    assert (named / "dataset.json").read_bytes() == (found / "dataset.json").read_bytes()
    assert json.loads((found / "dataset.json").read_text())["dataset"] == "voc"
    assert read_manifest(named / "proposals.lmdb").digest == read_manifest(found / "proposals.lmdb").digest
    again = detpipe("propose", *drawn.voc(voc_root), f"run_dir={found}", *small)
    assert again.status == 0
    assert "VOC: " not in again.err
