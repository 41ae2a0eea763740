"""Training MultiBox and Fast R-CNN together on drawn images: which regions are sampled; it learns and resumes."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detpipe.boxes import iou
from detpipe.classify.fast_rcnn.batches import RegionBatch
from detpipe.classify.labeling import Regions, SamplingConfig, sample_regions
from detpipe.classify.multibox_fast_rcnn import train as module
from detpipe.classify.multibox_fast_rcnn.network import build_multibox_fast_rcnn
from detpipe.classify.multibox_fast_rcnn.train import (
    multiple,
    region_generators,
    sampled,
    train_multibox_fast_rcnn,
    validation,
)
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.annotated_batches import AnnotatedBatch, AnnotatedImage
from detpipe.network.batch_order import image_generator
from detpipe.network.train_network import RunContext
from detpipe.solver.ranks import Ranks
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log
from detpipe.structures import GroundTruth
from tests import drawn
from tests.classify.multibox_fast_rcnn import tiny as tiny_multibox_fast_rcnn
from tests.heads.multibox import tiny as tiny_multibox
from tests.heads.multibox.tiny import annotated

CPU, ONE_PROCESS = torch.device("cpu"), Ranks()
SOLVER = SolverConfig(max_iter=2, batch_size=16, base_lr=5e-3, display=1, test_interval=1, snapshot=1)


def train(
    folder: Path,
    images: list[AnnotatedImage],
    val: list[AnnotatedImage],
    solver: SolverConfig = SOLVER,
    ranks: Ranks = ONE_PROCESS,
    **head: object,
) -> tuple[MultiBoxFastRcnn, dict[str, float]]:
    spec = tiny_multibox_fast_rcnn.spec(folder.parent / f"net_{folder.name}", **head)
    one = build_multibox_fast_rcnn(spec, seed=0, pretrained=True)
    context = RunContext(solver, folder, key="k", seed=0, device=CPU, bf16=False, ranks=ranks)
    summary = train_multibox_fast_rcnn(one, images, val, head=spec.head, sampling=SamplingConfig(), context=context)
    return one, summary


def test_two_iterations(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    _, summary = train(tmp_path / "made", images, images)
    rows = read_log(tmp_path / "made" / "log.jsonl")
    first, last = rows[0], rows[-1]
    assert first["class_loss"] == pytest.approx(math.log(3), abs=0.15)  # it begins with no idea
    parts = ("class_loss", "box_loss", "confidence_loss", "location_loss")
    weighted = sum(first[name] for name in parts) + (MultiBoxFastRcnnConfig().box_loss_weight - 1) * first["box_loss"]
    assert first["loss"] == pytest.approx(weighted, abs=1e-4)
    assert all(math.isfinite(last[name]) for name in (*parts, "val_loss", "val_accuracy", "val_fg_accuracy"))
    assert summary["iterations"] == 2


def test_the_weight_of_multiboxs_loss(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    train(tmp_path / "made", images, [], replace(SOLVER, max_iter=1), multibox_weight=0.0, box_loss_weight=3.0)
    row = read_log(tmp_path / "made" / "log.jsonl")[-1]
    assert row["loss"] == pytest.approx(row["class_loss"] + 3 * row["box_loss"], abs=1e-4)
    assert row["confidence_loss"] > 0
    assert "val_loss" not in row


def test_it_learns(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    long = replace(SOLVER, max_iter=40, batch_size=32, test_interval=40, snapshot=0)
    train(tmp_path / "made", images, images, long, crop_share=0.0, colour=0.0)
    rows = read_log(tmp_path / "made" / "log.jsonl")
    for name, share in (("class_loss", 0.85), ("location_loss", 0.95)):
        assert sum(row[name] for row in rows[-5:]) / 5 < share * rows[0][name], name


def test_a_resumed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    whole, _ = train(tmp_path / "whole", images, images)
    train(tmp_path / "broken", images, images)
    for path in (tmp_path / "broken" / "snapshots").glob("*"):
        if "0000001" not in path.name:
            path.unlink()
    assert list((tmp_path / "broken" / "snapshots").glob("*"))
    resumed, summary = train(tmp_path / "broken", images, images)
    assert summary["iterations"] == 2
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_attention_starts_as_the_head_without_it(tmp_path: Path) -> None:
    images, one_step = annotated(tmp_path), replace(SOLVER, max_iter=1)
    train(tmp_path / "without", images, images, one_step)
    train(tmp_path / "with", images, images, one_step, attention=2, best_weight=0.0)
    before, after = (read_log(tmp_path / name / "log.jsonl")[0] for name in ("without", "with"))
    for name in ("loss", "class_loss", "box_loss", "confidence_loss", "location_loss"):
        assert after[name] == before[name], name
    assert after["best_loss"] > 0
    assert "best_loss" not in before


def test_attention_learns_and_a_resumed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    short = replace(SOLVER, max_iter=6, snapshot=3)
    whole, _ = train(tmp_path / "whole", images, images, short, attention=1, denoise=2)
    assert whole.attention is not None
    assert whole.attention.layers[0].joined.weight.any()  # type: ignore[union-attr]
    train(tmp_path / "broken", images, images, short, attention=1, denoise=2)
    for path in (tmp_path / "broken" / "snapshots").glob("*"):
        if "0000003" not in path.name:
            path.unlink()
    resumed, _ = train(tmp_path / "broken", images, images, short, attention=1, denoise=2)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_the_weight_of_the_best_boxs_loss(tmp_path: Path) -> None:
    train(tmp_path / "made", annotated(tmp_path), [], replace(SOLVER, max_iter=1), attention=1, best_weight=2.0)
    row = read_log(tmp_path / "made" / "log.jsonl")[-1]
    others = row["class_loss"] + 10 * row["box_loss"] + row["confidence_loss"] + row["location_loss"]
    assert row["loss"] == pytest.approx(others + 2 * row["best_loss"], abs=1e-3)


def test_attention_on_images_without_objects(tmp_path: Path) -> None:
    bare = [replace(one, truth=GroundTruth.from_boxes([], [])) for one in annotated(tmp_path)]
    train(tmp_path / "made", bare, bare, attention=1, denoise=2)
    row = read_log(tmp_path / "made" / "log.jsonl")[-1]
    assert math.isfinite(row["best_loss"])
    assert row["denoise_loss"] == 0


def test_a_start_from_a_calibrated_multibox_learns_from_its_plain_logits(tmp_path: Path) -> None:
    start = tiny_multibox.network(tiny_multibox.spec(tmp_path / "net"))
    start.predictor.calibration.copy_(torch.tensor([[2.0, -1.0], [0.5, 3.0]]))
    predictor = {name: one for name, one in start.state_dict().items() if name.startswith("predictor.")}
    save_file(predictor, tmp_path / "start.safetensors")
    images = annotated(tmp_path)
    network, _ = train(
        tmp_path / "made", images, [], replace(SOLVER, base_lr=1e-9, weights=str(tmp_path / "start.safetensors"))
    )
    assert network.predictor.calibration.tolist() == [[1, 0]] * 2
    torch.testing.assert_close(network.predictor.shared.weight, start.predictor.shared.weight)


def test_images_without_objects_and_with_difficult_ones_alone(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    truth = images[0].truth
    difficult = replace(truth, difficult=np.ones(2, dtype=np.bool_))
    bare = [replace(images[0], truth=GroundTruth.from_boxes([], [])), replace(images[1], truth=difficult)]
    _, summary = train(tmp_path / "made", bare, bare)
    assert summary["iterations"] == 2
    row = read_log(tmp_path / "made" / "log.jsonl")[-1]
    assert math.isfinite(row["loss"])
    assert (row["box_loss"], row["location_loss"], row["val_fg_accuracy"]) == (0, 0, 0)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        train(tmp_path / "made", [], [])


TRUTHS = (
    drawn.draw(0)[1],
    GroundTruth.from_boxes([], []),
    replace(drawn.draw(1)[1], difficult=np.ones(2, dtype=np.bool_)),
)
SIZES = ((120, 160), (64, 100), (120, 160))


def batch(positions: tuple[int, ...] = (0, 1, 2)) -> AnnotatedBatch:
    """Three images: of two objects, of none, of difficult ones alone; the second one is smaller."""
    images = np.full((3, 128, 160, 3), 110, dtype=np.uint8)
    for place, number in ((0, 0), (2, 1)):
        images[place, :120] = drawn.draw(number)[0]
    images[1, :64, :100] = drawn.draw(2)[0][:64, :100]
    weights = tuple(np.ones(len(truth), dtype=np.float32) for truth in TRUTHS)
    return AnnotatedBatch(images, SIZES, TRUTHS, weights, 0, positions)


def regions_of(network: MultiBoxFastRcnn, *, seed: int = 0, proposals: int = 30, hopeless: bool = False) -> RegionBatch:
    """hopeless: every box that it predicts lies beside the image."""
    one = batch()
    with torch.no_grad():
        output = network.predict(network.feature_maps(torch.from_numpy(one.images)), (128, 160))
        if hopeless:
            deltas = torch.zeros_like(output.deltas)
            deltas[..., 0] = -1e3
            output = output._replace(deltas=deltas)
    return sampled(network, output, one, SamplingConfig(regions_per_image=24), proposals, region_generators(seed, one))


@pytest.fixture
def network(tmp_path: Path) -> MultiBoxFastRcnn:
    return tiny_multibox_fast_rcnn.network(tiny_multibox_fast_rcnn.spec(tmp_path / "net"))


def test_regions_are_the_seed_s(network: MultiBoxFastRcnn) -> None:
    first, again, other = regions_of(network), regions_of(network), regions_of(network, seed=1)
    for name in ("regions", "labels", "deltas"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.regions.tolist() != other.regions.tolist()


def test_an_image_has_the_same_draws_with_one_process_and_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of four images: of each image the objects as it is shown, and the numbers that choose its regions."""
    # Without a process group: gradients are not averaged, and no image depends on them here.
    monkeypatch.setattr(Ranks, "parallel", lambda _, network: network)
    monkeypatch.setattr(Ranks, "mean", lambda _, values: dict(values))
    monkeypatch.setattr(Ranks, "any", lambda _, flag: flag)
    images, taken = annotated(tmp_path), list[list[float]]()

    def noted(boxes: Any, truth: GroundTruth, size: Any, sampling: Any, generator: np.random.Generator) -> Regions:
        taken.append([*truth.boxes.flatten().tolist(), *deepcopy(generator).random(3)])
        return sample_regions(boxes, truth, size, sampling, generator)

    monkeypatch.setattr(module, "sample_regions", noted)

    def draws(folder: str, ranks: Ranks) -> list[list[float]]:
        taken.clear()
        train(tmp_path / folder, images, [], replace(SOLVER, snapshot=0), ranks, images_per_batch=4)
        return list(taken)

    alone, first, second = draws("alone", Ranks()), draws("first", Ranks(0, 2)), draws("second", Ranks(1, 2))
    assert len(alone) == 8
    assert len({tuple(one[-3:]) for one in alone}) == 8
    assert first == alone[0::2]
    assert second == alone[1::2]


def test_regions_and_views_are_drawn_from_different_numbers() -> None:
    one = batch(positions=(0, 3, 2))
    chosen = [generator.random() for generator in region_generators(0, one)]
    shown = [image_generator(0, one.number, position).random() for position in one.positions]
    assert len({*chosen, *shown}) == 6


def test_each_region_lies_in_its_own_image(network: MultiBoxFastRcnn) -> None:
    found = regions_of(network)
    assert found.regions.dtype == np.float32
    assert len(found.regions) == len(found.labels) == len(found.deltas)
    assert set(found.regions[:, 0]) == {0, 1, 2}
    for place, (height, width) in enumerate(SIZES):
        own = found.regions[found.regions[:, 0] == place]
        assert len(own) <= 24
        assert (own[:, 1:] >= 0).all()
        assert (own[:, 3] <= width).all()
        assert (own[:, 4] <= height).all()
        labels, truth = found.labels[found.regions[:, 0] == place], TRUTHS[place]
        assert set(labels) == (
            {0, 1, 2} if place == 0 else {0}
        )  # those without, or with difficult ones, are background
        overlaps = iou(own[:, 1:], truth.boxes)
        for label in set(labels) - {0}:
            assert (overlaps[labels == label][:, truth.labels == label] >= 0.5).all()
        if place == 2:
            assert overlaps.max() < 0.5  # what lies on a difficult object teaches nothing


def test_where_the_network_proposes_nothing_the_objects_teach(network: MultiBoxFastRcnn) -> None:
    found = regions_of(network, hopeless=True)
    assert set(found.regions[:, 0]) == {0}
    assert set(found.labels) >= {1, 2}


def test_validation_on_the_same_regions_each_time(tmp_path: Path, network: MultiBoxFastRcnn) -> None:
    images = annotated(tmp_path)
    head = tiny_multibox_fast_rcnn.head()
    validate = validation(network, images, head, SamplingConfig(), CPU, False, 32, 0)
    numbers = validate()
    assert numbers == validate()
    assert numbers.keys() == {"val_loss", "val_accuracy", "val_fg_accuracy"}
    with torch.no_grad():  # sure that all is background
        network.head.linear.weight.zero_()
        network.head.linear.bias.copy_(torch.tensor([50.0, 0, 0]))
    sure = validate()
    assert sure["val_fg_accuracy"] == 0
    assert 0 < sure["val_accuracy"] < 1
    assert sure["val_loss"] == pytest.approx(50 * (1 - sure["val_accuracy"]), rel=1e-4)


def test_validation_looks_at_no_more_images_than_asked(tmp_path: Path, network: MultiBoxFastRcnn) -> None:
    images = annotated(tmp_path, 3)
    images[1].path.unlink()
    assert validation(network, images, tiny_multibox_fast_rcnn.head(), SamplingConfig(), CPU, False, 2, 0)()
    with pytest.raises(OSError, match=r"1\.jpg"):
        validation(network, images, tiny_multibox_fast_rcnn.head(), SamplingConfig(), CPU, False, 3, 0)()


def test_sides_are_multiples_of_the_coarsest_stride(network: MultiBoxFastRcnn) -> None:
    assert multiple(network) == 16  # conv2 has a stride of 8, the map beyond it one of 16
