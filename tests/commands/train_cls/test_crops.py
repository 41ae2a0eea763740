"""`detpipe train-cls` from Caffe's file, from weights, and by two processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from detpipe.solver.training_log import read_log
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe
from tests.commands.test_run import bytes_of

SOLVER = """
base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 2 max_iter: 4 momentum: 0.9 weight_decay: 0.001
test_interval: 2 test_iter: 1 display: 1 snapshot: 2 snapshot_prefix: "models/mine" random_seed: 5 average_loss: 2
"""


@pytest.fixture
def cropped(finished_run: Path, tmp_path: Path) -> Path:
    """A run folder with crops and no classifier yet."""
    folder = tmp_path / "run"
    for name in ("crops.lmdb", "crops_val.lmdb"):
        shutil.copytree(finished_run / name, folder / name)
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    """Small settings, less what a solver.prototxt is to say."""
    small = [word for word in drawn.settings("train-cls") if not word.startswith("solver.") or "batch_size" in word]
    return ["train-cls", *small, f"run_dir={folder}", *more]


def rows(folder: Path) -> list[dict[str, Any]]:
    return read_log(folder / "classifier" / "log.jsonl")


def test_a_solver_prototxt_trains(cropped: Path, tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    done = detpipe(*arguments(cropped, f"solver.prototxt={tmp_path / 'solver.prototxt'}", "solver.max_iter=3"))
    assert done.status == 0, done.err
    found = rows(cropped)
    assert [row["iteration"] for row in found] == [0, 1, 2, 3]
    assert [row["lr"] for row in found[1:]] == pytest.approx([0.01, 0.01, 0.005])
    assert found[2]["smoothed_loss"] == pytest.approx((found[1]["loss"] + found[2]["loss"]) / 2, abs=2e-6)
    names = sorted(path.name for path in (cropped / "classifier" / "snapshots").iterdir())
    assert names == ["mine_iter_0000002.pt", "mine_iter_0000003.pt"]
    settings = read_manifest(cropped / "classifier").settings
    assert (settings["seed"], settings["solver"]["type"], settings["solver"]["decay_mult"]) == (
        5,
        "caffe_sgd",
        {"*": 1},
    )
    # The same settings by hand are the same training: nothing is to be done.
    again = detpipe(
        *arguments(cropped, "solver.type=caffe_sgd", "solver.base_lr=0.01", "solver.lr.policy=step", "seed=5"),
        *("solver.lr.gamma=0.5", "solver.lr.stepsize=2", "solver.max_iter=3", "solver.weight_decay=0.001"),
        *("solver.new_lr_mult=1", "+solver.decay_mult={*:1}"),
    )
    assert again.status == 0, again.err


def test_weights_count_by_their_content(cropped: Path, finished_run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    shutil.copy(finished_run / "classifier" / "weights.safetensors", weights)
    done = detpipe(*arguments(cropped, f"solver.weights={weights}", "solver.max_iter=0"))
    assert done.status == 0, done.err
    torch.testing.assert_close(
        load_file(cropped / "classifier" / "weights.safetensors"), load_file(weights), rtol=0, atol=0
    )
    moved = shutil.copy(weights, tmp_path / "moved.safetensors")
    assert detpipe(*arguments(cropped, f"solver.weights={moved}", "solver.max_iter=0")).status == 0
    without = detpipe(*arguments(cropped, "solver.max_iter=0"))
    assert without.status == 1
    assert "input solver.weights" in without.err


def test_weights_that_are_none_delete_nothing(finished_run: Path, tmp_path: Path) -> None:
    folder = drawn.copy(finished_run, tmp_path / "run")
    (tmp_path / "broken.safetensors").write_bytes(b"none")
    before = bytes_of(folder / "classifier")
    for word, message in (
        (f"solver.weights={tmp_path / 'gone.safetensors'}", "no such file"),
        (f"solver.weights={tmp_path / 'broken.safetensors'}", "expected a safetensors file"),
        (f"solver.weights={folder / 'classifier' / 'weights.safetensors'}", "which overwrite=true deletes first"),
        (f"backbone.weights={tmp_path / 'broken.safetensors'}", "expected a safetensors file"),
        ("backbone.name=torchvision/resnet18", "download=true"),
    ):
        more = [word] if word.startswith("backbone.weights") else [word, "backbone.weights=imagenet"]
        outcome = detpipe(*arguments(folder, *more, "solver.max_iter=0", "overwrite=true"))
        assert (outcome.status, message in outcome.err) == (1, True), outcome.err
        assert bytes_of(folder / "classifier") == before


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["backbone.weights", "solver.weights"])
def test_weights_that_are_none_are_named_before_anything_is_deleted(run_copy: Path, setting: str) -> None:
    weights = run_copy / "classifier" / "weights.safetensors"
    before = weights.read_bytes()
    for file in (run_copy / "gone.pt", run_copy / "classifier"):
        outcome = detpipe(*arguments(run_copy, f"{setting}={file}", "overwrite=true"))
        assert outcome.status == 1
        assert outcome.err.strip().splitlines()[-1].startswith(f"detpipe train-cls: {setting}: ")
        assert str(file) in outcome.err
    assert weights.read_bytes() == before


def test_a_librarys_weights_that_are_not_fetched_are_named_before_anything_is_deleted(run_copy: Path) -> None:
    weights = run_copy / "classifier" / "weights.safetensors"
    more = ["backbone.name=torchvision/resnet18", "backbone.weights=imagenet", "overwrite=true"]
    outcome = detpipe(*arguments(run_copy, *more))
    assert (outcome.status, "download=true" in outcome.err) == (1, True)
    assert weights.is_file()


def test_two_processes_train_as_one(cropped: Path, tmp_path: Path) -> None:
    other = tmp_path / "two"
    shutil.copytree(cropped, other)
    more = ["solver.max_iter=4", "solver.display=1", "head.dropout=0", "precision=float32", "solver.base_lr=0.001"]
    one = detpipe(*arguments(cropped, *more))
    assert one.status == 0, one.err
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two = subprocess.run(
        [*launch, "-m", "detpipe", *arguments(other, *more)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert two.returncode == 0, two.stderr
    for row, found in zip(rows(cropped), rows(other), strict=True):
        assert found["loss"] == pytest.approx(row["loss"], abs=1e-5)
    assert two.stdout.count("train-cls: 4 iterations") == 1
    assert read_manifest(other / "classifier").digest == read_manifest(cropped / "classifier").digest


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["backbone.name=torchvision/vit_b_16"], r"images of \d+ x \d+ pixels \(crops\.size\).*set crops\.size=224"),
        (["head.freeze_stages=99"], r"head\.freeze_stages: expected 0 to \d+,.*got 99; set head\.freeze_stages="),
        (["backbone.name=timm/no_such_network"], "timm"),  # missing, or without such a network
        (["backbone.name=torchvision/resnet5O"], "did you mean torchvision/resnet50"),
    ],
)
def test_a_backbone_that_can_not_work_is_named_before_the_old_classifier_goes(
    cropped: Path, finished_run: Path, words: list[str], sentence: str
) -> None:
    shutil.copytree(finished_run / "classifier", cropped / "classifier")
    before = bytes_of(cropped)
    done = detpipe(*arguments(cropped, "overwrite=true", "backbone.weights=none", *words))
    assert done.status == 1
    assert re.search(sentence, done.err)
    assert "Traceback" not in done.err
    assert bytes_of(cropped) == before


def test_nothing_was_made_by_a_backbone_that_failed(cropped: Path) -> None:
    # The next try must not have to say overwrite=true.
    done = detpipe(*arguments(cropped, "solver.max_iter=0", "backbone.weights=none", "head.freeze_stages=99"))
    assert done.status == 1
    done = detpipe(*arguments(cropped, "solver.max_iter=1", "backbone.weights=none", "head.freeze_stages=3"))
    assert done.status == 0, done.err
    assert "backbone.weights=none: the network has random weights, so all of it is trained" in done.err + done.out


def test_a_solver_prototxt_of_a_program_that_gives_max_iter(cropped: Path, tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(SOLVER.replace("max_iter: 4", ""))
    words = arguments(cropped, f"solver.prototxt={tmp_path / 'solver.prototxt'}")
    done = detpipe(*words)
    assert done.status == 1
    assert "solver.max_iter=..." in done.err
    done = detpipe(*words, "solver.max_iter=2")
    assert done.status == 0, done.err
    assert [row["iteration"] for row in rows(cropped)] == [0, 1, 2]
