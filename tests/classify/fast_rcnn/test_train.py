"""Training Fast R-CNN on drawn images: it learns, a broken training ends as an unbroken one, ranks see their images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detpipe.classify.fast_rcnn.batches import ProposedImage
from detpipe.classify.fast_rcnn.train import train_fast_rcnn
from detpipe.classify.labeling import SamplingConfig
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.network.train_network import RunContext
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log
from detpipe.structures import GroundTruth
from tests.classify import tiny
from tests.classify.fast_rcnn.test_batches import proposed

HEAD = FastRcnnConfig(
    maps=["stem"], merge_width=8, pool_size=3, hidden=16, dropout=0.0, freeze_stages=0, scales=[80, 100], max_side=400
)
SOLVER = SolverConfig(
    max_iter=40, batch_size=32, base_lr=5e-3, new_lr_mult=1.0, display=1, test_interval=20, snapshot=10
)


def network(seed: int = 0, head: FastRcnnConfig = HEAD) -> FastRcnn:
    torch.manual_seed(5)
    return FastRcnn(tiny.TinyBackbone(), 2, head, seed=seed)


def train(
    folder: Path,
    images: list[ProposedImage],
    solver: SolverConfig = SOLVER,
    *,
    bf16: bool = False,
    val: int = 2,
    head: FastRcnnConfig = HEAD,
) -> tuple[FastRcnn, dict[str, float]]:
    one = network(head=head)
    context = RunContext(solver, folder, key="k", seed=0, device=torch.device("cpu"), bf16=bf16)
    summary = train_fast_rcnn(one, images[val:], images[:val], head=head, sampling=SamplingConfig(), context=context)
    return one, summary


@pytest.mark.parametrize("bf16", [False, True])
def test_it_learns(tmp_path: Path, bf16: bool) -> None:
    _, summary = train(tmp_path / "made", proposed(tmp_path, 6), replace(SOLVER, max_iter=80), bf16=bf16)
    rows = read_log(tmp_path / "made" / "log.jsonl")
    assert rows[0]["class_loss"] == pytest.approx(math.log(3), abs=0.15)  # it begins with no idea
    assert rows[0]["loss"] == pytest.approx(
        rows[0]["class_loss"] + HEAD.box_loss_weight * rows[0]["box_loss"], abs=1e-3
    )
    assert sum(row["class_loss"] for row in rows[-5:]) / 5 < 0.5 * rows[0]["class_loss"]
    assert rows[-1]["val_fg_accuracy"] > 0.8
    assert rows[-1]["val_accuracy"] > 0.8
    assert summary["iterations"] == 80


def test_attention_and_denoising_learn(tmp_path: Path) -> None:
    images, head = proposed(tmp_path, 4), replace(HEAD, attention=1, denoise=2)
    whole, _ = train(tmp_path / "made", images, replace(SOLVER, max_iter=30), head=head)
    rows = read_log(tmp_path / "made" / "log.jsonl")
    for name in ("class_loss", "best_loss", "denoise_loss"):
        assert sum(row[name] for row in rows[-5:]) / 5 < 0.9 * rows[0][name], name
    first = rows[0]
    parts = first["class_loss"] + 10 * first["box_loss"] + 0.1 * first["best_loss"] + first["denoise_loss"]
    assert first["loss"] == pytest.approx(parts, abs=1e-3)
    assert whole.attention is not None
    train(tmp_path / "without", images, replace(SOLVER, max_iter=1))
    before = read_log(tmp_path / "without" / "log.jsonl")[0]
    assert (first["class_loss"], first["box_loss"]) == pytest.approx(
        (before["class_loss"], before["box_loss"]), abs=1e-5
    )


def test_a_resumed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    images = proposed(tmp_path, 4)
    short = replace(SOLVER, max_iter=6, snapshot=3, ema=0.9)
    whole, _ = train(tmp_path / "whole", images, short)
    train(tmp_path / "broken", images, replace(short))
    for path in (tmp_path / "broken" / "snapshots").glob("*"):
        if "0000003" not in path.name:
            path.unlink()
    resumed, _ = train(tmp_path / "broken", images, short)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_frozen_stages_keep_their_weights(tmp_path: Path) -> None:
    images, before = proposed(tmp_path, 3), network().backbone.state_dict()
    one = network()
    solver = replace(SOLVER, max_iter=3)
    context = RunContext(solver, tmp_path / "made", key="k", seed=0, device=torch.device("cpu"), bf16=False)
    train_fast_rcnn(one, images, [], head=replace(HEAD, freeze_stages=1), sampling=SamplingConfig(), context=context)
    for name, tensor in before.items():
        torch.testing.assert_close(one.backbone.state_dict()[name], tensor, rtol=0, atol=0)
    assert "val_loss" not in read_log(tmp_path / "made" / "log.jsonl")[-1]  # nothing to validate on


def test_images_that_give_no_regions_teach_nothing(tmp_path: Path) -> None:
    """Background must touch an object (Fast R-CNN's 0.1), and there is none: the weights stay, and the loss is 0."""
    images = [replace(one, truth=GroundTruth.from_boxes([], [])) for one in proposed(tmp_path, 3)]
    one, before = network(), network().state_dict()
    context = RunContext(
        replace(SOLVER, max_iter=2, weight_decay=0), tmp_path / "made", "k", 0, torch.device("cpu"), bf16=False
    )
    train_fast_rcnn(one, images, images[:1], head=HEAD, sampling=SamplingConfig(bg_iou_low=0.1), context=context)
    rows = read_log(tmp_path / "made" / "log.jsonl")
    assert [(row["loss"], row["accuracy"]) for row in rows] == [(0, 0), (0, 0)]
    for name, tensor in before.items():
        torch.testing.assert_close(one.state_dict()[name], tensor, rtol=0, atol=0)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        train(tmp_path, [], val=0)
