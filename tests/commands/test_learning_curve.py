"""`detpipe learning-curve` on the drawn run: with the run's own features, and with those of a frozen network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detpipe.commands.learning_curve import with_equal_steps
from detpipe.commands.learning_curve_settings import LearningCurve
from detpipe.heads.stored.linear_svm import SvmConfig
from detpipe.heads.stored.two_layers import TwoLayersConfig
from tests import drawn
from tests.command_line import Outcome, detpipe

FAST = ("shares=[0.3,0.6,1]", "draws=2", "resamples=20", "precision=float32", "device=cpu", "backbone.weights=none")


def curve(root: Path, folder: Path, *more: str) -> Outcome:
    return detpipe("learning-curve", f"run_dir={folder}", *drawn.voc(root), *FAST, *more)


def content(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "learning_curve.json").read_text())
    return values


@pytest.fixture(scope="module")
def with_features(voc_root: Path, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with proposals and stored features, without a classifier. Read only."""
    folder = drawn.copy(finished_run, tmp_path_factory.mktemp("curve") / "run")
    seen = ("features.image_sides=[64]", "features.grid=1", "features.crops=false", "backbone.weights=none")
    regions = ("sampling.regions_per_image=16", "sampling.fg_share=0.5", "detect.max_proposals=30", "device=cpu")
    outcome = detpipe("features", f"run_dir={folder}", *drawn.voc(voc_root), *seen, *regions, "precision=float32")
    assert outcome.status == 0, outcome.err
    return folder


def test_a_curve_of_stored_features(voc_root: Path, with_features: Path, tmp_path: Path) -> None:
    folder = drawn.copy(with_features, tmp_path / "run")
    outcome = curve(voc_root, folder)
    assert outcome.status == 0, outcome.err
    values = content(folder)
    assert [point["images"] for point in values["points"]] == [3, 6, 10]
    for point in values["points"]:
        assert len(point["draws"]) == 2
        assert point["map"]["value"] == pytest.approx(sum(point["draws"]) / 2)
        assert 0 <= point["map"]["low"] <= point["map"]["high"] <= 1
    assert values["head"]["name"] == "two_layers"
    assert values["conclusion"] in ("labels", "proposals", "pixels", None)
    assert values["sentence"] in outcome.out
    assert 0 < values["proposal_recall"]["value"] <= 1
    assert values["sentence"] in (folder / "learning_curve.html").read_text().replace("&#39;", "'")
    assert not (folder / "frozen").exists()
    first = (folder / "learning_curve.json").read_bytes()
    assert curve(voc_root, folder).status == 0
    assert (folder / "learning_curve.json").read_bytes() == first


def test_the_head_of_the_run(voc_root: Path, with_features: Path, tmp_path: Path) -> None:
    folder = drawn.copy(with_features, tmp_path / "run")
    trained = detpipe(
        "train-cls", f"run_dir={folder}", *drawn.voc(voc_root), "head=svm", "backbone.weights=none", "overwrite=true"
    )
    assert trained.status == 0, trained.err
    outcome = curve(voc_root, folder)
    assert outcome.status == 0, outcome.err
    assert content(folder)["head"]["name"] == "svm"


@pytest.mark.slow
def test_a_run_of_another_kind_gets_features(voc_root: Path, finished_run: Path, tmp_path: Path) -> None:
    folder = drawn.copy(finished_run, tmp_path / "run")
    outcome = curve(voc_root, folder, "networks=1")
    assert outcome.status == 0, outcome.err
    assert (folder / "frozen" / "features" / "test" / "manifest.json").is_file()
    assert content(folder)["test_images"] == len(drawn.TEST)
    again = curve(voc_root, folder, "networks=1")
    assert again.status == 0
    assert "to compute" not in again.err


def test_small_sets_are_trained_for_as_many_steps() -> None:
    head = with_equal_steps(TwoLayersConfig(passes=4), 25, 100)
    assert isinstance(head, TwoLayersConfig)
    assert head.passes == 16
    assert with_equal_steps(SvmConfig(), 25, 100) == SvmConfig()


def test_what_is_refused(voc_root: Path, with_features: Path, tmp_path: Path) -> None:
    for wrong in ({"shares": [1.0]}, {"shares": [0.5, 2]}, {"draws": 0}, {"networks": 0}, {"resamples": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LearningCurve(**wrong)  # type: ignore[arg-type]
    empty = curve(voc_root, tmp_path / "none")
    assert (empty.status, "run `detpipe propose`" in empty.err) == (1, True)
    photos = detpipe(
        "learning-curve", f"run_dir={with_features}", "dataset=images", f"dataset.root={voc_root / 'JPEGImages'}"
    )
    assert photos.status == 1
    assert "train" in photos.err
    one_class = curve(voc_root, with_features, "dataset.classes=[disc]")
    assert one_class.status == 1
    assert "detpipe features" in one_class.err
    few = curve(voc_root, with_features, "shares=[0.01,0.02]")
    assert few.status == 1
    assert "a single point is not a curve" in few.err
