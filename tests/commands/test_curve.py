"""`detpipe curve` on the drawn run: its numbers are those of a detection at each budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detpipe import Detector
from detpipe.classify.settings import CropScoringConfig, DetectConfig
from detpipe.commands.curve import run
from detpipe.commands.detect import stored_regions
from detpipe.commands.detector_settings import Curve
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.metrics.voc_ap import VocMethod, voc_ap
from detpipe.network.settings import Device, Precision
from detpipe.proposals.baselines import GroundTruthBoxes
from detpipe.runs.stored_split import open_split
from tests.commands.proposals.proposed import propose_into

PLAIN = {
    "detect": DetectConfig(score_floor=0),
    "precision": Precision.float32,
    "device": Device.cpu,
    "resamples": 20,
}


def curve(voc_root: Path, run_dir: Path, **settings: Any) -> dict[str, Any]:
    run(Curve(run_dir=str(run_dir), dataset=VocSource(root=str(voc_root)), **{**PLAIN, **settings}))
    content: dict[str, Any] = json.loads((run_dir / "curve.json").read_text())
    return content


def test_each_point_is_that_of_a_detection_with_so_many(
    voc_root: Path, run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    content = curve(voc_root, run_copy, budgets=[40, 5, 500])
    assert [point["budget"] for point in content["points"]] == [5, 40, 500]
    dataset = VocSource(root=str(voc_root)).load(Split.test)
    stored = open_split(run_copy / "proposals.lmdb", Split.test, dataset)
    detector = Detector.from_run(run_copy, device="cpu", config=PLAIN["detect"], precision="float32")
    for point in content["points"]:
        ids = [record.image_id for record in dataset.records]
        found = list(detector.predict_many(stored_regions(stored, dataset.records, point["budget"])))
        plain = voc_ap(
            dataset.ground_truth, dict(zip(ids, found, strict=True)), dataset.classes, method=VocMethod.VOC10
        )
        assert point["map"]["value"] == pytest.approx(plain.map, abs=0.01)
        seconds = point["seconds"]
        assert seconds["all"] == pytest.approx(seconds["propose"] + seconds["score"] + seconds["select"])
    last = content["points"][-1]
    assert 40 < last["proposals"] <= 60  # all that there are
    assert last["proposal_ar"]["value"] >= content["points"][0]["proposal_ar"]["value"]
    assert content["fewest"] in (5, 40, 500)
    for name in ("curve.json", "curve.png", "curve.html"):
        assert str(run_copy / name) in caplog.text
    assert "Too few images to tell" in caplog.text


def test_proposals_that_pixels_do_not_give_have_no_time(voc_root: Path, run_copy: Path, tmp_path: Path) -> None:
    propose_into(tmp_path / "oracle", VocSource(root=str(voc_root)), GroundTruthBoxes())
    (tmp_path / "oracle" / "classifier").symlink_to(run_copy / "classifier")
    content = curve(voc_root, tmp_path / "oracle", budgets=[2], split=Split.train, resamples=0)
    (point,) = content["points"]
    assert (content["split"], content["timed_images"]) == ("train", 10)
    assert point["seconds"]["propose"] is None
    assert point["proposal_ar"] == {"value": 1, "low": None, "high": None}


def test_what_is_refused(voc_root: Path, run_copy: Path) -> None:
    photos = ImageFolderSource(root=str(voc_root / "JPEGImages"))
    with pytest.raises(ValueError, match="no annotations"):
        run(Curve(run_dir=str(run_copy), dataset=photos))
    for wrong in ({"budgets": []}, {"budgets": [0]}, {"tolerance": 1}, {"resamples": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Curve(**wrong)  # type: ignore[arg-type]
    for choosing in (DetectConfig(dedup_step=16), DetectConfig(crops=CropScoringConfig(cascade_size=64))):
        with pytest.raises(ValueError, match=r"detect\.dedup_step=.*detect\.crops\.cascade_size=.*leave them out"):
            Curve(detect=choosing)
