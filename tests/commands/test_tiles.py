"""Tiles by the command line: a run uses them everywhere and keeps them; where they do not apply, they are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from detpipe import Detector
from detpipe.backbone.settings import BackboneConfig
from detpipe.commands.run import on_tiles
from detpipe.commands.run_settings import Run
from detpipe.commands.stage_settings import Detect, TrainCls
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.proposals.baselines import GroundTruthBoxes
from detpipe.proposals.tiled import TiledProposals
from detpipe.storage.manifest import read_manifest
from detpipe.tiles import TilesConfig
from tests import drawn
from tests.command_line import detpipe
from tests.commands.tiny_networks import BACKBONE, COMMON, DETECTION, OWN_PRIORS, TRAINING, net_in

TILES = {"size": 96, "overlap": 32, "whole": True}


@pytest.fixture(scope="module")
def tiled_run(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained on tiles, by `detpipe run tiles=`. Read only."""
    net, folder = net_in(tmp_path_factory.mktemp("net")), tmp_path_factory.mktemp("tiled") / "run"
    outcome = detpipe(
        *["run", *drawn.voc(voc_root), "experiment=multibox_fast_rcnn", *COMMON, *BACKBONE, net, *TRAINING],
        *[*OWN_PRIORS, *DETECTION, "proposals.max_proposals=30", "tiles=96", "overlap=32", f"run_dir={folder}"],
    )
    assert outcome.status == 0, outcome.err
    return folder


def test_all_stages_have_the_tiles(tiled_run: Path) -> None:
    description = json.loads((tiled_run / "classifier" / "classifier.json").read_text())
    assert description["head"]["tiles"] == TILES
    assert read_manifest(tiled_run / "classifier").settings["classifier"]["head"]["tiles"] == TILES
    proposer = read_manifest(tiled_run / "proposals.lmdb").settings["proposals"]
    assert (proposer["method"], proposer["size"], proposer["overlap"]) == ("TiledProposals", 96, 32)
    assert proposer["source"]["method"] == "MultiBoxProposals"


def test_new_photos_get_the_same_tiles(tiled_run: Path, voc_root: Path, tmp_path: Path) -> None:
    """The classifier's folder alone is the detector."""
    shutil.copytree(tiled_run / "classifier", tmp_path / "moved" / "classifier")
    detector = Detector.from_run(tmp_path / "moved")
    stored = json.loads((tiled_run / "detections.json").read_text())
    image_id = stored[0]["image_id"]
    own = [one for one in stored if one["image_id"] == image_id]
    (photo,) = (voc_root / "JPEGImages").glob(f"{image_id}.*")
    found = detector.predict(photo)
    assert len(found) == len(own)
    np.testing.assert_allclose(found.scores, [one["score"] for one in own], atol=1e-4)


def test_detect_can_use_other_tiles_and_none(tiled_run: Path, voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiled_run, folder)
    photo = next((voc_root / "JPEGImages").iterdir())
    for tiles in (["tiles=0"], ["tiles=64", "overlap=8"]):
        outcome = detpipe("detect", f"source={photo}", *tiles, f"run_dir={folder}", "overwrite=true", "device=cpu")
        assert outcome.status == 0, outcome.err
        (manifest,) = folder.glob("sources/*/detections.manifest.json")
        settings = json.loads(manifest.read_text())["settings"]["detect"]["fast_rcnn"]["tiles"]
        assert f"tiles={settings['size']}" == tiles[0]


def test_tiles_are_refused_where_they_do_not_apply(finished_run: Path, fast_run: Path) -> None:
    outcome = detpipe("detect", "tiles=64", f"run_dir={finished_run}")
    assert outcome.status != 0
    assert "detect.fast_rcnn.tiles needs head=fast_rcnn" in outcome.err
    outcome = detpipe("export", "detect.fast_rcnn.tiles.size=64", f"run_dir={fast_run}")
    assert outcome.status != 0
    assert "detect.fast_rcnn.tiles.size=0" in outcome.err


def test_the_settings_of_a_run_reach_head_multibox_and_proposals() -> None:
    run = Run(tiles=200, overlap=40, head=FastRcnnConfig(), backbone=BackboneConfig())
    expected = TilesConfig(size=200, overlap=40)
    assert isinstance(run.head, FastRcnnConfig)
    assert run.head.tiles == run.multibox.tiles == expected
    assert run.stage(TrainCls).head == run.head
    assert not run.stage(Detect).detect.fast_rcnn.tiles.used  # those of the training
    proposals = on_tiles(run).proposals
    assert isinstance(proposals, TiledProposals)
    assert proposals.tiles == expected
    assert on_tiles(on_tiles(run)).proposals == proposals


def test_a_head_on_crops_has_tiles_for_its_proposals_only() -> None:
    run = Run(tiles=200)
    assert isinstance(on_tiles(run).proposals, TiledProposals)
    assert not hasattr(run.head, "tiles")
    boxes = GroundTruthBoxes()
    assert on_tiles(Run(tiles=200, proposals=boxes)).proposals is boxes
    assert not isinstance(on_tiles(Run()).proposals, TiledProposals)


def test_wrong_tiles_are_named_before_any_work() -> None:
    with pytest.raises(ValueError, match=r"^tiles: "):
        Run(tiles=5)
    with pytest.raises(ValueError, match=r"^overlap: "):
        Detect(overlap=5)
