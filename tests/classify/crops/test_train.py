"""Fine-tuning on a tiny database of crops: the losses by hand, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detpipe.classify.crops.database import CropBatch, CropsReader
from detpipe.classify.crops.train import (
    fine_tune,
    mirrored,
    region_losses,
    region_weights,
    solve_box_regression,
    validation,
)
from detpipe.heads.bbox_regressor import TARGET_STD
from detpipe.heads.region_head import TrainedHeadConfig
from detpipe.network.train_network import RunContext
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log
from detpipe.storage.datum import pack_image
from detpipe.storage.lmdb_store import LmdbWriter
from tests.classify import tiny

CPU = torch.device("cpu")
HEAD = TrainedHeadConfig(
    freeze_stages=0, freeze_batch_norm=False, dropout=0.0, flip=False
)  # a mirrored shift has no colour
SOLVER = SolverConfig(max_iter=40, batch_size=8, base_lr=0.02, new_lr_mult=1.0, display=1, test_interval=10, snapshot=0)
SHIFT = {1: 0.25, 2: -0.25}
"""The dx of each class's regions: to be learnt from the colour."""


def write_crops(path: Path, count: int, *, foreground: bool = True) -> CropsReader:
    """Grey background, red of class 1, green of class 2, with noise; each class has its own shift."""
    generator = np.random.default_rng(count)
    colours = {0: (120, 120, 120), 1: (220, 30, 30), 2: (30, 220, 30)}
    with LmdbWriter(path) as writer:
        for number in range(count):
            label = number % 3 if foreground else 0
            noise = generator.integers(0, 30, (tiny.SIDE, tiny.SIDE, 3))
            datum = pack_image((colours[label] + noise).astype(np.uint8), jpeg_quality=None)
            datum.label, datum.iou = label, 0.9 if number % 2 else 0.55
            if label:
                datum.box_target.extend([SHIFT[label], 0.0, 0.0, 0.1])
            writer.put(f"{number:08d}_a".encode(), datum.SerializeToString())
    return CropsReader(path)


def train(
    folder: Path, *, head: TrainedHeadConfig = HEAD, solver: SolverConfig = SOLVER, bf16: bool = False
) -> tuple[torch.nn.Module, dict[str, float]]:
    folder.mkdir(exist_ok=True)
    crops, val = write_crops(folder / "crops", 30), write_crops(folder / "val", 9)
    network = tiny.classifier()
    context = RunContext(solver, folder / "classifier", key="k", seed=0, device=CPU, bf16=bf16)
    summary = fine_tune(network, crops, val, head=head, fg_share=0.5, context=context)
    return network, summary


@pytest.mark.parametrize("bf16", [False, True])
def test_it_learns(tmp_path: Path, bf16: bool) -> None:
    network, summary = train(tmp_path, bf16=bf16)
    rows = read_log(tmp_path / "classifier" / "log.jsonl")
    assert [row["iteration"] for row in rows] == list(range(1, 41))
    assert rows[0]["loss"] == pytest.approx(rows[0]["class_loss"] + rows[0]["box_loss"], abs=1e-4)
    assert rows[0]["class_loss"] == pytest.approx(math.log(3), abs=0.1)  # it begins with no idea
    assert rows[-1]["class_loss"] < 0.5 * rows[0]["class_loss"]
    assert rows[-1]["box_loss"] < 0.7 * rows[0]["box_loss"]
    assert rows[-1]["val_accuracy"] > 0.9
    assert rows[-1]["val_fg_accuracy"] > 0.9
    assert {"val_loss" in row for row in rows[9::10]} == {True}
    assert summary["iterations"] == 40
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_the_same_training_gives_the_same_weights(tmp_path: Path) -> None:
    head = replace(HEAD, dropout=0.3, flip=True)
    one, _ = train(tmp_path / "one", head=head, solver=replace(SOLVER, max_iter=5))
    torch.manual_seed(99)
    two, _ = train(tmp_path / "two", head=head, solver=replace(SOLVER, max_iter=5))
    for ours, theirs in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_frozen_stages_keep_their_weights(tmp_path: Path) -> None:
    network, _ = train(tmp_path, head=replace(HEAD, freeze_stages=1), solver=replace(SOLVER, max_iter=3))
    fresh = tiny.classifier()
    assert torch.equal(network.state_dict()["backbone.stem.weight"], fresh.state_dict()["backbone.stem.weight"])
    assert not torch.equal(network.state_dict()["head.linear.weight"], fresh.state_dict()["head.linear.weight"])


def test_no_crops(tmp_path: Path) -> None:
    empty = write_crops(tmp_path / "crops", 0)
    context = RunContext(SOLVER, tmp_path / "c", key="k", seed=0, device=CPU, bf16=False)
    with pytest.raises(ValueError, match="expected at least one example to train on, got none"):
        fine_tune(tiny.classifier(), empty, None, head=HEAD, fg_share=0.25, context=context)


def batch_of(labels: list[int], deltas: list[list[float]]) -> CropBatch:
    return CropBatch(tiny.crops(len(labels)), np.array(labels), np.array(deltas, dtype=np.float32).reshape(-1, 4))


def test_losses_by_hand() -> None:
    regressor = tiny.classifier().box_regressor
    assert regressor is not None
    batch = batch_of([0, 2], [[0, 0, 0, 0], [0.2, 0.05, 0, 0]])
    logits = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(6)]])
    losses = region_losses(regressor, logits, torch.zeros(2, 2, 4), batch, replace(HEAD, box_loss_weight=3.0), CPU)
    class_loss = (math.log(4 / 2) + math.log(8 / 6)) / 2
    # Smooth L1 of 0.2 / 0.1 = 2 is 1.5, of 0.05 / 0.1 = 0.5 is 0.125; over both regions.
    assert TARGET_STD[:2] == (0.1, 0.1)
    box_loss = (1.5 + 0.125) / 2
    assert float(losses["class_loss"]) == pytest.approx(class_loss, rel=1e-5)
    assert float(losses["box_loss"]) == pytest.approx(box_loss, rel=1e-5)
    assert float(losses["loss"]) == pytest.approx(class_loss + 3 * box_loss, rel=1e-5)
    assert float(losses["accuracy"]) == 1.0


def test_losses_without_box_regression() -> None:
    losses = region_losses(None, torch.zeros(2, 3), None, batch_of([0, 1], [[0] * 4] * 2), HEAD, CPU)
    assert losses.keys() == {"loss", "class_loss", "accuracy"}
    assert float(losses["loss"]) == pytest.approx(math.log(3))
    assert float(losses["accuracy"]) == 0.5


@pytest.mark.parametrize(
    ("labels", "most", "expected"),
    [
        ([1, 0, 0, 0, 0, 0, 0, 0], 8.0, [2.0, *[6 / 7] * 7]),  # a quarter of 8
        ([1, 0, 0, 0, 0, 0, 0, 0], 1.5, [1.5, *[6.5 / 7] * 7]),
        ([1, 0, 0, 2], 8.0, [1.0] * 4),  # more than a quarter is foreground
        ([0, 0], 8.0, [1.0] * 2),
        ([1, 2], 8.0, [1.0] * 2),
        ([], 8.0, []),
    ],
)
def test_few_foreground_regions_weigh_more(labels: list[int], most: float, expected: list[float]) -> None:
    weights = region_weights(torch.tensor(labels, dtype=torch.int64), 0.25, most)
    assert weights.tolist() == pytest.approx(expected)


def test_the_class_loss_is_the_weighted_mean() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    batch = batch_of([1, 0, 0, 0, 0], [[0] * 4] * 5)
    found = region_losses(None, logits, None, batch, HEAD, CPU, fg_share=0.4, foreground_weight=8.0)
    one, others = math.log(1 + math.exp(2)), 3 * math.log(2) + math.log(1 + math.exp(-1))
    assert float(found["class_loss"]) == pytest.approx((2 * one + 0.75 * others) / 5)
    plain = region_losses(None, logits, None, batch, HEAD, CPU)
    assert float(plain["class_loss"]) == pytest.approx((one + others) / 5)


def test_mirrored_crops_and_their_deltas() -> None:
    batch = batch_of([1] * 40, [[0.3, 0.2, 0.1, 0.4]] * 40)
    before = batch.crops.copy(), batch.deltas.copy()
    chosen = np.random.default_rng(0).random(40) < 0.5
    turned = mirrored(batch, chosen)
    moved = turned.deltas[:, 0] < 0
    np.testing.assert_array_equal(moved, chosen)
    np.testing.assert_array_equal(turned.crops[moved], batch.crops[moved][:, :, ::-1])
    np.testing.assert_array_equal(turned.crops[~moved], batch.crops[~moved])
    np.testing.assert_allclose(turned.deltas[moved], [[-0.3, 0.2, 0.1, 0.4]] * moved.sum(), rtol=1e-6)
    np.testing.assert_allclose(turned.deltas[~moved], [[0.3, 0.2, 0.1, 0.4]] * (~moved).sum(), rtol=1e-6)
    np.testing.assert_array_equal(batch.crops, before[0])
    np.testing.assert_array_equal(batch.deltas, before[1])
    again = mirrored(batch, chosen)
    np.testing.assert_array_equal(again.crops, turned.crops)


def test_mirroring_twice_gives_the_batch_back() -> None:
    batch = batch_of([1, 0, 2], [[0.3, 0.2, 0.1, 0.4]] * 3)
    chosen = np.array([True, False, True])
    twice = mirrored(mirrored(batch, chosen), chosen)
    np.testing.assert_array_equal(twice.crops, batch.crops)
    np.testing.assert_array_equal(twice.deltas, batch.deltas)


def test_validation_by_hand(tmp_path: Path) -> None:
    """A classifier that says background to all: a third is right, of the foreground nothing."""
    network = tiny.classifier().eval()
    with torch.no_grad():
        network.head.linear.weight.zero_()
        network.head.linear.bias.copy_(torch.tensor([math.log(2), 0.0, 0.0]))
    numbers = validation(network, write_crops(tmp_path / "val", 9), CPU, False)()
    assert numbers["val_accuracy"] == pytest.approx(1 / 3)
    assert numbers["val_fg_accuracy"] == 0.0
    assert numbers["val_loss"] == pytest.approx((math.log(2) + 2 * math.log(4)) / 3, rel=1e-5)
    background = validation(network, write_crops(tmp_path / "background", 4, foreground=False), CPU, False)()
    assert (background["val_accuracy"], background["val_fg_accuracy"]) == (1.0, 0.0)


def test_ridge_regression_finds_the_shift_of_each_class(tmp_path: Path) -> None:
    network = tiny.classifier().eval()
    reader = write_crops(tmp_path / "crops", 60)
    solve_box_regression(network, reader, replace(HEAD, ridge=1e-3), device=CPU, bf16=False)
    rows = np.flatnonzero(reader.labels > 0)
    with torch.inference_mode():
        _, deltas = network(torch.from_numpy(reader.read(rows).crops))
    for delta, label in zip(deltas.numpy(), reader.labels[rows], strict=True):
        np.testing.assert_allclose(delta[label - 1], [SHIFT[int(label)], 0, 0, 0.1], atol=0.01)


def test_ridge_regression_takes_close_regions_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"head\.ridge_iou: .*lower head\.ridge_iou"):
        solve_box_regression(
            tiny.classifier(), write_crops(tmp_path / "c", 12), replace(HEAD, ridge_iou=0.95), device=CPU, bf16=False
        )
