"""A run that trains its own proposer: the network stands in multibox/, and beside the detector that needs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from detpipe import Detector
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import Outcome, detpipe
from tests.commands.test_run import bytes_of
from tests.commands.tiny_networks import BACKBONE, COMMON, DETECTION, PROPOSER, TRAINING, net_in


def run(voc_root: Path, net: str, folder: Path, *more: str) -> Outcome:
    return detpipe(
        *["run", *drawn.voc(voc_root), "head=fast_rcnn", *COMMON, *BACKBONE, net, *TRAINING, *PROPOSER, *DETECTION],
        *[*more, f"run_dir={folder}"],
    )


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names the tiny net."""
    return net_in(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def proposed_by_network(voc_root: Path, net: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Fast R-CNN on MultiBox's boxes. Read only."""
    folder = tmp_path_factory.mktemp("networks") / "run"
    outcome = run(voc_root, net, folder, "proposals=multibox", "proposals.max_proposals=30")
    assert outcome.status == 0, outcome.err
    return folder


def test_the_network_is_trained_first(proposed_by_network: Path) -> None:
    folder = proposed_by_network
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics["seconds"]) == ["train-multibox", "propose", "train-cls", "detect", "eval"]
    assert metrics["seconds"]["train-multibox"] == read_manifest(folder / "multibox").seconds
    described = read_manifest(folder / "proposals.lmdb").settings["proposals"]
    assert (described["method"], described["weights"]) == ("MultiBoxProposals", str(folder / "multibox"))
    page = (folder / "report.html").read_text()
    for words in ("The proposal network", "The classifier", "average recall, 100 boxes"):
        assert words in page


def test_a_second_run_does_nothing(proposed_by_network: Path, voc_root: Path, net: str) -> None:
    before = bytes_of(proposed_by_network)
    outcome = run(voc_root, net, proposed_by_network, "proposals=multibox", "proposals.max_proposals=30")
    assert outcome.status == 0, outcome.err
    assert bytes_of(proposed_by_network) == before


def test_a_moved_run_folder_is_the_same_run(voc_root: Path, net: str, tmp_path: Path) -> None:
    """Finished, nothing is done; without its classifier, that is trained, and keeps the network that moved along."""
    settings, there = ["proposals=multibox", "proposals.max_proposals=30"], tmp_path / "there"
    outcome = run(voc_root, net, tmp_path / "here", *settings)
    assert outcome.status == 0, outcome.err
    (tmp_path / "here").rename(there)
    before = bytes_of(there)
    outcome = run(voc_root, net, there, *settings)
    assert outcome.status == 0, outcome.err
    assert bytes_of(there) == before

    (there / "classifier").rename(tmp_path / "first")
    outcome = run(voc_root, net, there, *settings)
    assert outcome.status == 0, outcome.err
    for name in ("weights.safetensors", "multibox/weights.safetensors"):
        assert (there / "classifier" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_the_classifier_alone_is_a_detector(proposed_by_network: Path, voc_root: Path, tmp_path: Path) -> None:
    """As on another machine: what made its proposals is gone from where it was."""
    whole = drawn.copy(proposed_by_network, tmp_path / "whole")
    image = voc_root / "JPEGImages" / "test_0.jpg"
    before = Detector.from_run(whole, device="cpu").predict(image)
    assert len(before) > 0
    shutil.copytree(whole / "classifier", tmp_path / "elsewhere" / "classifier")
    description = tmp_path / "elsewhere" / "classifier" / "proposals.json"
    described = json.loads(description.read_text())
    description.write_text(json.dumps({**described, "weights": str(tmp_path / "gone")}))
    proposer = proposer_of_run(RunFolder(tmp_path / "elsewhere"))
    assert isinstance(proposer, MultiBoxProposals)
    assert proposer.weights == str(tmp_path / "elsewhere" / "classifier" / "multibox")
    after = Detector.from_run(tmp_path / "elsewhere", device="cpu").predict(image)
    np.testing.assert_array_equal(after.boxes, before.boxes)
    np.testing.assert_array_equal(after.scores, before.scores)


def test_a_network_that_is_gone_ends_no_training(
    proposed_by_network: Path, voc_root: Path, net: str, tmp_path: Path
) -> None:
    """The proposals are there; new images can't be looked at, which detect says before it makes room."""
    folder = tmp_path / "run"
    shutil.copytree(proposed_by_network / "proposals.lmdb", folder / "proposals.lmdb")
    described = json.loads((folder / "proposals.lmdb" / "manifest.json").read_text())
    described["settings"]["proposals"]["weights"] = str(tmp_path / "gone")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "proposals.lmdb" / "manifest.json").write_text(json.dumps(described))
    (folder / "multibox").mkdir()  # one of its own, without files
    training = [*drawn.voc(voc_root), "head=fast_rcnn", *COMMON, *BACKBONE, net, *TRAINING]
    outcome = detpipe("train-cls", *training, f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    assert "could not be saved" in outcome.err
    assert not (folder / "classifier" / "multibox").exists()
    outcome = detpipe("detect", *drawn.voc(voc_root), *COMMON, *DETECTION, f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    found = (folder / "detections.json").read_bytes()
    assert found == (proposed_by_network / "detections.json").read_bytes()
    source = f"source={voc_root / 'JPEGImages' / 'test_0.jpg'}"
    outcome = detpipe("detect", *COMMON, *DETECTION, source, f"run_dir={folder}")
    assert outcome.status == 1
    assert f"{tmp_path / 'gone'}: " in outcome.err
    assert "run `detpipe train-multibox`" in outcome.err
    assert (folder / "detections.json").read_bytes() == found
    outcome = detpipe(
        *["curve", *drawn.voc(voc_root), *COMMON, *DETECTION, "budgets=[30]", "resamples=0", f"run_dir={folder}"]
    )
    assert outcome.status == 0, outcome.err
    assert "the proposal time of multibox is unknown: proposals.weights: " in outcome.err


def test_inspect_run_draws_the_proposers_training(proposed_by_network: Path, tmp_path: Path) -> None:
    outcome = detpipe("inspect", "run", f"run_dir={proposed_by_network / 'multibox'}", f"out={tmp_path}")
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "inspect_run.json").read_text())["training"].endswith("caffe, MultiBox")
    assert "recall, 10 boxes" in (tmp_path / "inspect_run.html").read_text()


def test_joined_with_another_method(voc_root: Path, net: str, tmp_path: Path) -> None:
    """The network among the sources is trained first, too, and kept beside the detector."""
    folder = tmp_path / "run"
    more = ["proposals=fuse", "proposals.sources=[uniform,multibox]", "proposals.budgets=[20,10]"]
    outcome = run(voc_root, net, folder, *more)
    assert outcome.status == 0, outcome.err
    assert read_manifest(folder / "proposals.lmdb").settings["proposals"]["weights"] == str(folder / "multibox")
    shutil.rmtree(folder / "proposals.lmdb")
    shutil.move(folder / "multibox", tmp_path / "away")
    image = voc_root / "JPEGImages" / "test_0.jpg"
    assert len(Detector.from_run(folder, device="cpu").predict(image)) > 0
