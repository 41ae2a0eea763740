"""`detpipe proposals ...`: look into, check, join and hand on; what is made is gone on from as from propose's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detpipe import Detector
from detpipe.commands.proposals.verify import faults_of_images
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.proposals.fusion import Fused
from detpipe.proposals.proposals_db import ProposalsReader, ProposalsWriter
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.lmdb_store import LmdbWriter
from detpipe.storage.manifest import read_manifest
from detpipe.structures import ImageRecord, LeftOut
from tests import drawn
from tests.command_line import Outcome, detpipe


@pytest.fixture(autouse=True)
def _stand_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def propose(root: Path, run: Path, *more: str) -> Outcome:
    return good(detpipe("propose", *drawn.voc(root), "workers=0", f"run_dir={run}", *more))


def good(outcome: Outcome) -> Outcome:
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def runs(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the proposals of uniform, of gaussian and of both, fused. Read only."""
    folder = tmp_path_factory.mktemp("proposals")
    propose(voc_root, folder / "uniform", "proposals=uniform", "proposals.max_proposals=40")
    propose(voc_root, folder / "gaussian", "proposals=gaussian", "proposals.max_proposals=30")
    fused = ("proposals=fuse", "proposals.sources=[uniform,gaussian]", "proposals.budgets=[40,30]")
    propose(voc_root, folder / "fused", *fused)
    return folder


def records(run: Path) -> dict[str, bytes]:
    with ProposalsReader(run / "proposals.lmdb") as reader:
        return dict(reader.records())


# --- info and verify --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "value", "named"),
    [
        (4096 + 128, b"\xff\xff\x00", "expected pages"),  # the root in the newer meta page is outside the file
        (4096 + 92, b"\x04", "expected one value per key"),
        (4096 + 41, b"\x11", "expected an LMDB meta page"),
    ],
)
def test_a_damaged_database_is_one_sentence(runs: Path, tmp_path: Path, at: int, value: bytes, named: str) -> None:
    shutil.copytree(runs / "uniform", tmp_path / "run")
    file = tmp_path / "run" / "proposals.lmdb" / "data.mdb"
    data = bytearray(file.read_bytes())
    for head in (at, at - 4096):  # in both meta pages: either may be the newer one
        data[head : head + len(value)] = value
    file.write_bytes(data)
    for words in (("info",), ("verify",)):
        outcome = detpipe("proposals", *words, f"run_dir={tmp_path / 'run'}")
        assert outcome.status == 1
        assert named in outcome.err
        assert str(file) in outcome.err
        assert "Traceback" not in outcome.err


def test_a_database_that_is_a_pointer_is_named(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "uniform", tmp_path / "run")
    file = tmp_path / "run" / "proposals.lmdb" / "data.mdb"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    outcome = detpipe("proposals", "info", f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 1
    assert "Git LFS pointer" in outcome.err


def test_info_of_a_fusion(runs: Path) -> None:
    text = good(detpipe("proposals", "info", f"path={runs / 'fused'}")).out
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  "))
    assert lines["method"] == "fuse"
    assert 'sources=["uniform", "gaussian"]' in lines["settings"]
    assert lines["seed"] == "0"
    assert lines["images"] == "test 4, train 10"
    assert "uint16 in units of 2^-s pixels, s 8: rounding error at most 1/512; whole pixels are exact" in text
    assert "made by   detpipe " in text
    counts = [int(word) for word in lines["sources"].replace(",", "").split() if word.isdigit()]
    assert sum(counts) == int(lines["boxes"].split(";")[0])
    assert len(counts) == 2
    assert 12 < float(lines["size"].split()[0]) < 16


def test_info_in_the_run_folder(runs: Path) -> None:
    text = good(detpipe("proposals", "info", f"run_dir={runs / 'uniform'}")).out
    assert "method    uniform" in text
    assert "sources   " not in text


def test_info_of_half_a_database(runs: Path, tmp_path: Path) -> None:
    folder = drawn.copy(runs / "uniform", tmp_path / "half")
    manifest = folder / "proposals.lmdb/manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    outcome = detpipe("proposals", "info", f"path={folder}")
    assert outcome.status == 1
    assert "not finished; run `detpipe propose` again" in outcome.err


def verify(run: Path, *more: str) -> Outcome:
    return detpipe("proposals", "verify", f"path={run}", *more)


def test_verify_what_is_whole(runs: Path, voc_root: Path) -> None:
    for run in ("uniform", "fused"):
        assert "are valid" in good(verify(runs / run)).out
        assert "match the images" in good(verify(runs / run, *drawn.voc(voc_root))).out


def spoil(run: Path, change: dict[str, bytes]) -> Path:
    with LmdbWriter(run / "proposals.lmdb") as writer:
        for key, value in change.items():
            writer.put(key.encode(), value)
    return run


def test_verify_names_damage(runs: Path, tmp_path: Path) -> None:
    run = drawn.copy(runs / "uniform", tmp_path / "run")
    flipped = bytearray(records(run)["train/train_3"])
    flipped[len(flipped) // 2] ^= 4
    outcome = verify(spoil(run, {"train/train_3": bytes(flipped), "test/test_1": b"", "train/more": b"x"}))
    assert outcome.status == 1
    assert "record 'train/train_3'" in outcome.err
    assert "record 'test/test_1'" in outcome.err
    assert "expected 14 records, got 15" in outcome.err
    assert "expected no faults, got 4" in outcome.err.strip().splitlines()[-1]


def test_verify_names_sources_without_a_name(runs: Path, tmp_path: Path) -> None:
    run = drawn.copy(runs / "uniform", tmp_path / "run")
    outcome = verify(spoil(run, {"test/test_0": records(runs / "fused")["test/test_0"]}))
    assert outcome.status == 1
    assert "a box of source 1" in outcome.err


def test_verify_compares_the_images(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "voc")
    drawn.write_jpeg(root / "JPEGImages/test_2.jpg", drawn.draw(77)[0])
    outcome = verify(runs / "uniform", *drawn.voc(root))
    assert outcome.status == 1
    assert "test_2.jpg: changed since its proposals were made" in outcome.err
    (root / "ImageSets/Main/test.txt").write_text("test_0\ntrain_1\n")
    outcome = verify(runs / "uniform", *drawn.voc(root))
    assert "no record of test image train_1" in outcome.err
    assert "give the dataset settings" in outcome.err


def test_verify_wants_the_record_of_an_image_that_only_has_the_name_of_one_left_out(
    runs: Path, voc_root: Path, tmp_path: Path
) -> None:
    """train_1 was left out of another split, and has a record in none: as a test image it is missing."""
    manifest = read_manifest(runs / "uniform/proposals.lmdb")
    for key, faults in (("train/train_1", 1), ("val/train_1", 1), ("test/train_1", 0)):
        named = replace(manifest, bad=[LeftOut("elsewhere/train_1.jpg", "broken", key)])
        dataset = VocSource(root=str(voc_root)).load(Split.test)
        record = ImageRecord("train_1", Path(voc_root) / "JPEGImages/train_1.jpg", drawn.IMAGE_SIZE)
        assert dataset.ground_truth is not None
        one = replace(dataset, records=(record,), ground_truth={"train_1": dataset.ground_truth["test_0"]})
        found = list(faults_of_images(runs / "uniform/proposals.lmdb", named, Split.test, one))
        assert sum("no record of test image train_1" in fault for fault in found) == faults


# --- export and import ------------------------------------------------------------------------------------------------


def test_export_and_import_give_the_same_records(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        out = f"out={tmp_path / f'boxes_{split}.json'}"
        good(detpipe("proposals", "export", *drawn.voc(voc_root), f"path={runs / 'uniform'}", f"split={split}", out))
    arguments = [f'proposals.path="{tmp_path}/boxes_*.json"', f"run_dir={tmp_path / 'run'}", "workers=0"]
    good(detpipe("proposals", "import", *drawn.voc(voc_root), *arguments))
    assert records(tmp_path / "run") == records(runs / "uniform")
    good(detpipe("propose", *drawn.voc(voc_root), "proposals=import", *arguments))  # the same artefact: nothing to do


def test_export_of_an_unreadable_image_has_no_boxes(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "uniform", run)
    shutil.rmtree(run / "proposals.lmdb")
    with ProposalsWriter(run / "proposals.lmdb") as writer:
        for key, record in records(runs / "uniform").items():
            if key != "test/test_3":
                writer.put(*key.split("/"), record)
    shutil.copy(runs / "uniform/proposals.lmdb/manifest.json", run / "proposals.lmdb")
    out = tmp_path / "boxes.pkl"
    outcome = good(
        detpipe("proposals", "export", *drawn.voc(voc_root), f"path={run}", f"out={out}", "format=detectron2")
    )
    assert "test_3.jpg: no proposals" in outcome.err
    assert "export: 120 boxes of 4 test images" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out=a.pkl"], "ending in .json, got 'a.pkl'"),
        ([], "give out=FILE"),
        (["out=a.json", "dataset.test=trainval"], "give the dataset settings"),
    ],
)
def test_what_export_refuses(runs: Path, voc_root: Path, arguments: list[str], words: str) -> None:
    outcome = detpipe("proposals", "export", *drawn.voc(voc_root), f"path={runs / 'uniform'}", *arguments)
    assert outcome.status == 1
    assert words in outcome.err
    assert list(Path.cwd().iterdir()) == []


def test_import_and_fuse_do_their_own_work_only(voc_root: Path, tmp_path: Path) -> None:
    for command in ("import", "fuse"):
        outcome = detpipe("proposals", command, *drawn.voc(voc_root), "proposals=uniform", f"run_dir={tmp_path}/run")
        assert outcome.status == 1
        assert f"expected proposals={command}, got another method" in outcome.err


# --- fuse and merge ---------------------------------------------------------------------------------------------------


def test_fused_databases_are_what_their_methods_fused_are(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    sources = f"sources=[{runs / 'uniform'},{runs / 'gaussian' / 'proposals.lmdb'}]"
    good(detpipe("proposals", "fuse", *drawn.voc(voc_root), sources, "workers=0", f"run_dir={tmp_path / 'run'}"))
    assert records(tmp_path / "run") == records(runs / "fused")
    inputs = read_manifest(tmp_path / "run/proposals.lmdb").inputs
    digest = read_manifest(runs / "uniform/proposals.lmdb").digest
    assert inputs[f"source {runs / 'uniform'}"] == digest


def test_fused_by_two_workers_are_the_same(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    sources = ["proposals=fuse", "proposals.sources=[uniform,gaussian]", "proposals.budgets=[40,30]"]
    good(detpipe("propose", *drawn.voc(voc_root), *sources, "workers=2", f"run_dir={tmp_path / 'run'}"))
    assert records(tmp_path / "run") == records(runs / "fused")


def test_an_image_that_a_source_lacks_is_named(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "voc")
    drawn.write_jpeg(root / "JPEGImages/test_2.jpg", drawn.draw(77)[0])
    sources = f"sources=[{runs / 'uniform'}]"
    outcome = detpipe("proposals", "fuse", *drawn.voc(root), sources, "workers=0", f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 1
    assert "1 of 14 images" in outcome.err
    assert "boxes of another file (in test)" in outcome.err


def test_the_detector_looks_at_new_images_as_the_run_did(runs: Path) -> None:
    proposer = proposer_of_run(RunFolder(runs / "fused"))
    assert isinstance(proposer, Fused)
    assert (proposer.sources, proposer.budgets) == (["uniform", "gaussian"], [40, 30])


def shards(voc_root: Path, tmp_path: Path, *settings: str) -> tuple[Path, list[str]]:
    """The proposals of two halves of the training images, the test images with the first; and the whole data set."""
    root = drawn.copy(voc_root, tmp_path / "voc")
    lists = root / "ImageSets/Main"
    (lists / "first.txt").write_text("\n".join(drawn.TRAIN[:4]))
    (lists / "second.txt").write_text("\n".join(drawn.TRAIN[4:]))
    (lists / "one.txt").write_text(drawn.TEST[0])
    propose(root, tmp_path / "a", "dataset.train=first", *settings)
    propose(root, tmp_path / "b", "dataset.train=second", "dataset.test=one", *settings)
    return root, [f"shards=[{tmp_path / 'a'},{tmp_path / 'b'}]", f"run_dir={tmp_path / 'run'}"]


UNIFORM = ("proposals=uniform", "proposals.max_proposals=40")


def test_merged_shards_are_one_run(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    root, arguments = shards(voc_root, tmp_path, *UNIFORM)
    outcome = good(detpipe("proposals", "merge", *drawn.voc(root), *arguments))
    assert "propose: 14 images" in outcome.out
    assert records(tmp_path / "run") == records(runs / "uniform")
    made, whole = (read_manifest(run / "proposals.lmdb") for run in (tmp_path / "run", runs / "uniform"))
    assert made.digest == whole.digest
    assert made.summary == whole.summary
    assert (tmp_path / "run/recall.json").read_text() == (runs / "uniform/recall.json").read_text()
    propose(root, tmp_path / "run", *UNIFORM)  # nothing to do
    good(detpipe("proposals", "merge", *drawn.voc(root), *arguments))


def test_merge_refuses_other_settings(voc_root: Path, tmp_path: Path) -> None:
    root, arguments = shards(voc_root, tmp_path, *UNIFORM)
    propose(root, tmp_path / "b", "dataset.train=second", "proposals=uniform", "proposals.seed=1", "overwrite=true")
    outcome = detpipe("proposals", "merge", *drawn.voc(root), *arguments)
    assert outcome.status == 1
    assert "proposals.max_proposals: 40 -> 2000; proposals.seed: 0 -> 1" in outcome.err
    assert not (tmp_path / "run/proposals.lmdb").exists()


def test_merge_refuses_different_boxes_of_an_image(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    root, arguments = shards(voc_root, tmp_path, *UNIFORM)
    spoil(tmp_path / "b", {"test/test_0": records(runs / "gaussian")["test/test_0"]})
    outcome = detpipe("proposals", "merge", *drawn.voc(root), *arguments)
    assert outcome.status == 1
    assert "test image test_0: expected one record, got different ones in" in outcome.err


def test_merge_names_what_no_shard_has(voc_root: Path, tmp_path: Path) -> None:
    root, arguments = shards(voc_root, tmp_path, *UNIFORM)
    outcome = detpipe("proposals", "merge", *drawn.voc(root), f"shards=[{tmp_path / 'b'}]", arguments[1])
    assert outcome.status == 1
    assert "train_0.jpg: no shard has train image train_0" in outcome.err
    good(detpipe("proposals", "merge", *drawn.voc(root), *arguments))  # goes on where it was


def test_merge_refuses_a_changed_image(voc_root: Path, tmp_path: Path) -> None:
    root, arguments = shards(voc_root, tmp_path, *UNIFORM)
    drawn.write_jpeg(root / "JPEGImages/train_6.jpg", drawn.draw(77)[0])
    outcome = detpipe("proposals", "merge", *drawn.voc(root), *arguments)
    assert outcome.status == 1
    assert "make this shard again" in outcome.err


def test_merge_of_nothing_and_into_itself(voc_root: Path, tmp_path: Path) -> None:
    outcome = detpipe("proposals", "merge", *drawn.voc(voc_root), f"run_dir={tmp_path}/run")
    assert "give shards=" in outcome.err
    root, _ = shards(voc_root, tmp_path, *UNIFORM)
    outcome = detpipe("proposals", "merge", *drawn.voc(root), f"shards=[{tmp_path}/a]", f"run_dir={tmp_path}/a")
    assert "give another run_dir" in outcome.err
    assert len(records(tmp_path / "a")) == 8


def test_the_flow_goes_on_from_a_fusion(runs: Path, voc_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sources = f"sources=[{runs / 'uniform'},{runs / 'gaussian'}]"
    good(detpipe("proposals", "fuse", *drawn.voc(voc_root), sources, "workers=0", f"run_dir={run}"))
    for command in ("crop", "train-cls", "detect", "eval"):
        good(detpipe(command, *drawn.voc(voc_root), *drawn.settings(command), f"run_dir={run}"))
    assert json.loads((run / "metrics.json").read_text())["seconds"]["propose"] >= 0
    image = drawn.draw(50)[0]
    detections = Detector.from_run(run, device="cpu").predict(image)  # of stored boxes: selective search looks
    assert detections.boxes.dtype == np.float32


# --- What all share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["export", "recall", "show"])
def test_a_split_means_the_same_everywhere(runs: Path, voc_root: Path, command: str) -> None:
    wrong = {
        ("split=minival",): "Invalid value 'minival', expected one of [train, val, test]",
        ("split=val",): "drawn val: expected a val split",
        ("dataset.test=trainval",): "give the dataset settings",
        ("path=runs/none",): "runs/none: expected a proposals.lmdb or a run folder with one",
    }
    for arguments, words in wrong.items():
        place = [f"path={runs / 'uniform'}", "run_dir=run", *(["out=a.json"] if command == "export" else [])]
        outcome = detpipe("proposals", command, *drawn.voc(voc_root), *place, *arguments)
        assert outcome.status == 1
        assert words in outcome.err.strip().splitlines()[-1]


def test_results_of_a_path_stand_in_the_run_folder(runs: Path, voc_root: Path) -> None:
    before = {path.name for path in (runs / "uniform").iterdir()}
    place = [f"path={runs / 'uniform'}", "run_dir=results", "split=train"]
    outcome = good(detpipe("proposals", "recall", *drawn.voc(voc_root), *place, f"against=[{runs / 'gaussian'}]"))
    assert "uniform minus gaussian, ar at 2000: " in outcome.out
    good(detpipe("proposals", "show", *drawn.voc(voc_root), *place, "count=2"))
    assert {path.name for path in Path("results").iterdir()} >= {"recall_curves.json", "recall_curves.html"}
    assert (Path("results") / "proposals_shown" / "0002_train_1.jpg").is_file()
    assert {path.name for path in (runs / "uniform").iterdir()} == before
