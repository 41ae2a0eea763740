"""`detpipe run` without an experiment: which words it becomes, and that a run folder keeps its recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.auto_experiment import with_recipe
from detpipe.commands.table import COMMANDS
from detpipe.runs import recipe
from detpipe.runs.kept_recipe import kept_recipe
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.dataclass_json import DataclassJsonError
from tests import drawn
from tests.command_line import detpipe

RUN = COMMANDS["run"]
CHOSEN = ["experiment=rcnn_frozen", "chosen_recipe=rcnn_frozen"]
"""The recipe for the ten objects of each class that the images of these tests have, by `few_objects`."""
SMALL = (
    *("workers=0", "device=cpu", "precision=float32", "detect.compile=false", "backbone.weights=none"),
    *("detect.max_proposals=20", "experiment=auto", "proposals.preset=opencv_single", "proposals.max_proposals=40"),
    *("features.image_sides=[96]", "features.mirrored=false", "head.networks=1", "head.passes=1", "head.hidden=8"),
)


@pytest.fixture(autouse=True)
def few_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten objects of each class are few, so the quick recipe is chosen."""
    monkeypatch.setattr(recipe, "FEW_OBJECTS", 11)


def words(*typed: str) -> list[str]:
    return with_recipe(RUN, typed)[0]


def test_a_recipe_is_named(voc_root: Path, tmp_path: Path) -> None:
    typed = [*drawn.voc(voc_root), f"run_dir={tmp_path}", "seed=3", "solver.max_iter=5"]
    assert words(*typed) == [*typed, *CHOSEN]
    assert words(*typed, "experiment=auto") == [*typed, *CHOSEN]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word",
    [
        *("head=svm", "head.width=8", "proposals=uniform", "proposals.max_proposals=9", "sampling.jittered=0"),
        *("crops.size=64", "fine_tune=true", "solver=sgd", "backbone=caffe", "backbone.name=torchvision/resnet18"),
        *("solver.prototxt=a", "features.crops=false", "~head", "multibox_solver.max_iter=3"),
    ],
)
def test_a_part_of_a_recipe_means_r_cnn(word: str, voc_root: Path) -> None:
    found, note = with_recipe(RUN, [*drawn.voc(voc_root), word])
    assert found == [*drawn.voc(voc_root), word]
    assert word.lstrip("~").partition("=")[0] in note


@pytest.mark.parametrize(
    "word",
    ["backbone.name=efficientnet_lite1", "backbone.weights=none", "solver.base_lr=0.1", "detect.nms_iou=0.3", "seed=1"],
)
def test_a_setting_of_all_recipes_is_no_part(word: str, voc_root: Path, tmp_path: Path) -> None:
    assert words(*drawn.voc(voc_root), word, f"run_dir={tmp_path}")[-2:] == CHOSEN


def test_a_named_experiment_stays() -> None:
    assert words("experiment=rcnn", "dataset.root=nowhere") == ["experiment=rcnn", "dataset.root=nowhere"]


def test_another_command_has_none() -> None:
    assert with_recipe(COMMANDS["propose"], ["seed=1"]) == (["seed=1"], "")
    with pytest.raises(ValueError, match=r"experiment=auto: .*detpipe propose.*detpipe run"):
        with_recipe(COMMANDS["propose"], ["experiment=auto"])


@pytest.mark.parametrize(
    "typed",
    [["experiment=auto,rcnn", "-m"], ["experiment=auto", "dataset=demo,voc", "-m"], ["precision=bf16,float32", "-m"]],
)
def test_a_sweep_has_one_recipe(typed: list[str]) -> None:
    with pytest.raises(ValueError, match=r"experiment=auto.*: expected"):
        words(*typed)


def test_a_sweep_over_seeds_has_one(voc_root: Path, tmp_path: Path) -> None:
    typed = ["-m", *drawn.voc(voc_root), f"run_dir={tmp_path}", "solver.base_lr=0.1,0.2"]
    assert words(*typed) == [*typed, *CHOSEN]


def test_missing_data_is_no_error_of_cfg(tmp_path: Path) -> None:
    typed = ["dataset=voc", f"dataset.root={tmp_path / 'nowhere'}"]
    assert with_recipe(RUN, typed, lenient=True) == (typed, "")
    with pytest.raises((OSError, ValueError), match="nowhere"):
        with_recipe(RUN, typed)


def test_a_wrong_setting_is_an_error_before_the_data_is_read(tmp_path: Path) -> None:
    outcome = detpipe("run", "dataset=demo", f"dataset.root={tmp_path / 'demo'}", "solver.max_itr=3")
    assert outcome.status == 1
    assert "solver.max_iter" in outcome.err
    assert not (tmp_path / "demo").exists()


def test_a_run_keeps_its_recipe(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [*drawn.voc(voc_root), f"run_dir={tmp_path}", *SMALL]
    first = detpipe("run", *typed, "solver.max_iter=5", "solver.base_lr=0.1")
    assert first.status == 0, first.err
    kept = kept_recipe(RunFolder(tmp_path))
    assert kept is not None
    assert (kept.experiment, kept.facts.classes) == ("rcnn_frozen", 2)
    assert kept.sentence in first.out
    assert kept.sentence.startswith("experiment=auto uses rcnn_frozen")
    assert "solver.max_iter, solver.base_lr: no effect" in first.err
    # The settings that were typed win over the recipe's.
    manifest = json.loads((tmp_path / "features/train/manifest.json").read_text())
    assert manifest["settings"]["extraction"]["features"]["image_sides"] == [96]
    made = (tmp_path / "classifier/weights.safetensors").stat().st_mtime_ns

    # As if another machine or other images had led to another choice.
    values = json.loads((tmp_path / "recipe.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps(values | {"experiment": "fast_rcnn"}))
    assert words(*drawn.voc(voc_root), f"run_dir={tmp_path}")[-1] == "chosen_recipe=fast_rcnn"
    assert words(*drawn.voc(voc_root), f"run_dir={tmp_path}", "overwrite=true")[-1] == CHOSEN[-1]
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    again = detpipe("run", *typed[2:])  # the folder remembers the data set, too
    assert again.status == 0, again.err
    assert (tmp_path / "classifier/weights.safetensors").stat().st_mtime_ns == made
    assert kept.sentence in again.out
    assert "solver." not in again.err

    monkeypatch.setattr(recipe, "FEW_OBJECTS", 5)  # as if there were more images now
    changed = detpipe("run", *typed)
    assert changed.status == 0, changed.err
    assert (tmp_path / "classifier/weights.safetensors").stat().st_mtime_ns == made
    assert "keeps rcnn_frozen" in changed.err
    assert "overwrite=true" in changed.err


def test_a_run_that_began_without_it_stays(run_copy: Path, voc_root: Path) -> None:
    found, note = with_recipe(RUN, [*drawn.voc(voc_root), f"run_dir={run_copy}"])
    assert found == [*drawn.voc(voc_root), f"run_dir={run_copy}"]
    assert "R-CNN" in note


def test_a_damaged_file_is_named(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"experiment": "best"}')
    with pytest.raises(DataclassJsonError, match=r"recipe\.json.*experiment=NAME"):
        words(*drawn.voc(voc_root), f"run_dir={tmp_path}")


def test_help_shows_the_default() -> None:
    assert "experiment=auto" in detpipe("run", "--help").out
