"""What has changed in a data set since an artefact was made: named by image, not by digests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.runs.dataset_record import DatasetRecord, changes, explainer, remember
from detpipe.runs.run_folder import RunFolder, dataset_digest, images_digest
from tests import drawn
from tests.command_line import detpipe

BEFORE = DatasetRecord(
    classes=["cat"], images=dict.fromkeys("abcdef", "1"), objects=dict.fromkeys("abcdef", "1")
)  # fmt: skip


def test_no_change_is_nothing() -> None:
    assert changes(BEFORE, BEFORE) == []


def test_each_kind_of_change_names_its_images() -> None:
    now = DatasetRecord(
        classes=["cat", "dog"],
        images={"a": "1", "b": "2", "c": "1", "d": "1", "e": "1", "g": "1"},
        objects={"a": "2", "b": "1", "c": "2", "d": "2", "e": "2", "g": "1"},
    )
    assert changes(BEFORE, now) == [
        "classes changed: cat -> cat, dog",
        "1 image added: g",
        "1 image removed: f",
        "1 image file changed: b",
        "annotations of 4 images changed: a, c, d and 1 more",
    ]


def test_a_record_that_is_missing_or_damaged_is_told_without_names(tmp_path: Path, voc_root: Path) -> None:
    dataset = VocSource(root=str(voc_root)).load(Split.train)
    explain = explainer(RunFolder(tmp_path), {"train": dataset})
    assert explain("crops", "0" * 32) is None
    assert explain("train", "0" * 32) == "the images, objects or classes of train changed"
    remember(RunFolder(tmp_path), [dataset])
    for digest in (dataset_digest(dataset), images_digest(dataset)):
        assert explain("train", digest) is None  # nothing has changed
        (tmp_path / "datasets" / f"{digest}.json").write_text('{"classes": 3}')
        assert explain("train", digest) == "the images, objects or classes of train changed"


@pytest.fixture
def changed(voc_root: Path, tmp_path: Path) -> Path:
    """The VOC folder with another class for an object of train_1 and one of test_0."""
    root = drawn.copy(voc_root, tmp_path / voc_root.name)
    for name in ("train_1", "test_0"):
        path = root / "Annotations" / f"{name}.xml"
        path.write_text(path.read_text().replace("disc", "square"))
    return root


def test_a_changed_annotation_is_named_and_proposals_stay(run_copy: Path, changed: Path) -> None:
    proposals = (run_copy / "proposals.lmdb" / "data.mdb").stat().st_mtime_ns
    recall = (run_copy / "recall.json").read_bytes()
    outcome = detpipe("run", *drawn.voc(changed), *drawn.settings("run"), f"run_dir={run_copy}")
    assert outcome.status == 1
    last = outcome.err.strip().splitlines()[-1]
    assert "crops.lmdb: made with other data: annotations of 1 image changed: train_1. Give overwrite=true" in last
    assert (run_copy / "proposals.lmdb" / "data.mdb").stat().st_mtime_ns == proposals
    assert "measured their recall again" in outcome.err
    assert (run_copy / "recall.json").read_bytes() != recall
    again = detpipe("propose", *drawn.voc(changed), *drawn.settings("propose"), f"run_dir={run_copy}")
    assert again.status == 0
    assert "recall again" not in again.err


def test_an_added_image_is_named(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / voc_root.name)
    with (root / "ImageSets/Main/test.txt").open("a") as file:
        file.write("train_0\n")
    outcome = detpipe("propose", *drawn.voc(root), *drawn.settings("propose"), f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "1 image added: train_0" in outcome.err


def test_proposals_of_an_earlier_version_stay(run_copy: Path, voc_root: Path) -> None:
    """Its manifest has a digest of images and objects."""
    path = run_copy / "proposals.lmdb" / "manifest.json"
    manifest = json.loads(path.read_text())
    source = VocSource(root=str(voc_root))
    for split in (Split.train, Split.test):
        manifest["inputs"][split.value] = dataset_digest(source.load(split))
    del manifest["summary"]["objects"]
    path.write_text(json.dumps(manifest))
    outcome = detpipe("propose", *drawn.voc(voc_root), *drawn.settings("propose"), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err


def test_boxes_of_the_annotations_are_outdated_by_other_annotations(tmp_path: Path, voc_root: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "copy")
    arguments = [*drawn.voc(root), "proposals=ground_truth", "workers=0", f"run_dir={tmp_path / 'run'}"]
    assert detpipe("propose", *arguments).status == 0
    path = root / "Annotations" / "train_2.xml"
    path.write_text(path.read_text().replace("<xmin>", "<xmin>1", 1))
    outcome = detpipe("propose", *arguments)
    assert outcome.status == 1, outcome.err
    assert "annotations of 1 image changed: train_2" in outcome.err
