"""Training MultiBox on drawn images: it learns, a broken training ends as an unbroken one, confidences are fitted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detpipe.boxes import iou
from detpipe.datasets.image_file import read_image
from detpipe.heads.multibox.folder import build_multibox
from detpipe.heads.multibox.network import MultiBox
from detpipe.heads.multibox.settings import (
    Confidence,
    Form,
    Localization,
    Matching,
    MultiBoxConfig,
    MultiBoxSolverConfig,
)
from detpipe.heads.multibox.train import (
    VALIDATION_IMAGES,
    calibrate,
    multiple,
    proposed,
    train_multibox,
    validation,
    views,
)
from detpipe.heads.stored.platt import platt
from detpipe.network.annotated_batches import AnnotatedImage, padded
from detpipe.network.scaled_image import mean_colour
from detpipe.network.train_network import RunContext
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log
from detpipe.structures import GroundTruth
from tests.heads.multibox import tiny as tiny_multibox

CPU = torch.device("cpu")
SOLVER = MultiBoxSolverConfig(max_iter=2, batch_size=2, base_lr=5e-3, display=1, test_interval=1, snapshot=1)


def train(
    folder: Path,
    images: list[AnnotatedImage],
    val: list[AnnotatedImage],
    solver: SolverConfig = SOLVER,
    *,
    bf16: bool = False,
    **settings: object,
) -> tuple[MultiBox, dict[str, float]]:
    spec = tiny_multibox.spec(folder.parent / f"net_{folder.name}", **settings)
    one = build_multibox(spec, seed=0, pretrained=True)
    context = RunContext(solver, folder, key="k", seed=0, device=CPU, bf16=bf16)
    summary = train_multibox(one, images, val, head=spec.multibox, context=context)
    return one, summary


@pytest.mark.parametrize("bf16", [False, True])
def test_it_learns(tmp_path: Path, bf16: bool) -> None:
    images = tiny_multibox.annotated(tmp_path)
    long = replace(SOLVER, max_iter=60, test_interval=60, snapshot=0)
    _, summary = train(tmp_path / "made", images, images, long, bf16=bf16, crop_share=0, colour=0, width=16)
    rows = read_log(tmp_path / "made" / "log.jsonl")
    assert rows[0]["loss"] == pytest.approx(rows[0]["confidence_loss"] + rows[0]["location_loss"], abs=1e-4)
    assert sum(row["location_loss"] for row in rows[-5:]) / 5 < 0.8 * rows[0]["location_loss"]
    assert sum(row["loss"] for row in rows[-5:]) / 5 < 0.8 * rows[0]["loss"]
    assert summary["iterations"] == 60


def test_a_resumed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    images, short = tiny_multibox.annotated(tmp_path), replace(SOLVER, ema=0.9)
    whole, _ = train(tmp_path / "whole", images, images, short, calibrate=True)
    train(tmp_path / "broken", images, images, short, calibrate=True)
    for path in (tmp_path / "broken" / "snapshots").glob("*"):
        if "0000001" not in path.name:
            path.unlink()
    assert list((tmp_path / "broken" / "snapshots").glob("*"))
    resumed, summary = train(tmp_path / "broken", images, images, short, calibrate=True)
    assert summary["iterations"] == 2
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("form", "maps"), [(Form.grids, [*[11] * 5, 1]), (Form.whole, [3])], ids=lambda value: str(value)
)
def test_the_other_forms_train(form: Form, maps: list[int], tmp_path: Path) -> None:
    spec = tiny_multibox.spec(
        tmp_path / "net",
        form=form,
        matching=Matching.bipartite,
        localization=Localization.squared,
        confidence=Confidence.cross_entropy,
        negatives=10,
    )
    shapes = [[[-9.0 - place, -9, 9, 9] for place in range(count)] for count in maps]
    spec = replace(spec, shapes=tuple(tuple(map(tuple, one)) for one in shapes))
    network, images = tiny_multibox.network(spec), tiny_multibox.annotated(tmp_path)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    context = RunContext(SOLVER, tmp_path / "made", key="k", seed=0, device=CPU, bf16=False)
    train_multibox(network, images, images, head=spec.multibox, context=context)
    row = read_log(tmp_path / "made" / "log.jsonl")[-1]
    assert math.isfinite(row["loss"])
    after = network.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before if name.startswith("neck"))
    assert 0 <= row["val_recall_100"] <= 1


def test_validation_gives_the_recall_of_the_best_boxes(tmp_path: Path) -> None:
    """Without training, boxes are priors: of 30 and 60 pixels on an input of half the size, 16 at each cell."""
    images = tiny_multibox.annotated(tmp_path)
    train(tmp_path / "made", images, images)
    names = [f"val_{kind}_{count}" for count in (10, 50, 100) for kind in ("recall", "ar")]
    rows = read_log(tmp_path / "made" / "log.jsonl")
    for name in names:
        assert 0 <= rows[-1][name] <= 1
    assert rows[-1]["val_recall_10"] <= rows[-1]["val_recall_50"] <= rows[-1]["val_recall_100"]


def test_validation_by_hand(tmp_path: Path) -> None:
    """Both objects of the one image are found, a prior each: where there is only one sure prior, one in two is."""
    spec = tiny_multibox.spec(tmp_path / "net")
    network = tiny_multibox.network(spec)
    for layer in network.predictor.outputs:
        torch.nn.init.zeros_(layer.weight)
    (image,) = tiny_multibox.annotated(tmp_path, 1)
    # At 64 x 85: the prior of 30 x 30 at the cell (3, 4) of stride 8, and one of 60 far too large for the other object.
    scale = np.array([160 / 85, 120 / 64] * 2)
    truth = GroundTruth.from_boxes([[21, 13, 51, 43] * scale, [70, 2, 80, 12] * scale], [1, 2])
    numbers = validation(network, [replace(image, truth=truth)], spec.multibox, CPU, False)()
    assert set(numbers) == {f"val_{kind}_{count}" for count in (10, 50, 100) for kind in ("recall", "ar")}
    assert numbers["val_recall_100"] == 0.5
    assert numbers["val_ar_100"] == pytest.approx(0.5)


@pytest.mark.parametrize("flag", [None, "difficult", "crowd"])
def test_where_no_image_has_objects_nothing_is_validated(flag: str | None, tmp_path: Path) -> None:
    images = tiny_multibox.annotated(tmp_path)
    truth = GroundTruth.from_boxes([], []) if flag is None else images[0].truth
    if flag is not None:
        truth = replace(truth, **{flag: np.ones(2, dtype=np.bool_)})
    train(tmp_path / "made", images, [replace(images[0], truth=truth)])
    assert not [name for row in read_log(tmp_path / "made" / "log.jsonl") for name in row if name.startswith("val_")]


def test_of_many_images_those_with_objects_are_looked_at(tmp_path: Path) -> None:
    """The only one with objects is not among those that are evenly spread over all."""
    images = tiny_multibox.annotated(tmp_path)
    count = VALIDATION_IMAGES * 4
    val = [replace(images[0], truth=GroundTruth.from_boxes([], []))] * count
    val[1] = images[1]
    train(tmp_path / "made", images, val)
    assert 0 <= read_log(tmp_path / "made" / "log.jsonl")[-1]["val_recall_100"] <= 1


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        train(tmp_path / "made", [], [])


def test_images_without_objects_teach_background(tmp_path: Path) -> None:
    images = [replace(one, truth=GroundTruth.from_boxes([], [])) for one in tiny_multibox.annotated(tmp_path)]
    train(tmp_path / "made", images, [], calibrate=True)
    rows = read_log(tmp_path / "made" / "log.jsonl")
    assert [row["location_loss"] for row in rows] == [0, 0]
    assert rows[1]["loss"] < rows[0]["loss"]


def test_calibration_fits_each_shape_of_priors(tmp_path: Path) -> None:
    """The squares of 30 find the object; none of 60 does, so that nothing is known of them: (1, 0)."""
    spec = tiny_multibox.spec(tmp_path / "net")
    network, (image,) = tiny_multibox.network(spec), tiny_multibox.annotated(tmp_path, 1)
    for layer in network.predictor.outputs:
        layer.weight.data[1:].zero_()  # boxes are priors, logits are as they are
    scale = np.array([160 / 85, 120 / 64] * 2)
    image = replace(image, truth=GroundTruth.from_boxes([[21, 13, 51, 43] * scale], [1]))
    with torch.inference_mode():
        pixels, seen = views(spec.multibox).plain(read_image(image.path), image.truth)
        batch = torch.from_numpy(padded([pixels], 64, mean_colour(network.backbone.spec))[0])
        output = network(batch)
    right = iou(output.priors.numpy(), seen.boxes).max(axis=1) >= 0.5
    small = (output.shape_index == 0).numpy()
    assert 0 < right[small].sum() < small.sum()
    assert not right[~small].any()
    calibrate(network, [image], spec.multibox, CPU, False)
    wanted = platt(output.logits[0].numpy()[small], right[small])
    np.testing.assert_allclose(network.predictor.calibration.numpy(), [wanted, (1, 0)], rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        chances = network(batch).logits[0].sigmoid().numpy()
    # Chances add up to the number of boxes that are right (Platt's targets hold back a little).
    assert chances[small].sum() == pytest.approx(right[small].sum(), abs=1)


def test_a_second_calibration_is_of_what_the_first_one_gave(tmp_path: Path) -> None:
    """The logits went through the line that is there; the new one is taken of those."""
    spec = tiny_multibox.spec(tmp_path / "net")
    network, images = tiny_multibox.network(spec), tiny_multibox.annotated(tmp_path, 2)
    network.predictor.calibration.copy_(torch.tensor([[2.0, -1.0], [0.5, 3.0]]))
    with mock.patch("detpipe.heads.multibox.train.platt", return_value=(0.5, 0.25)):
        calibrate(network, images, spec.multibox, CPU, False)
    # 0.5 (2 x - 1) + 0.25 and 0.5 (0.5 x + 3) + 0.25.
    assert network.predictor.calibration.tolist() == [[1.0, -0.25], [0.25, 1.75]]


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_what_teaches_nothing_has_no_part_in_calibration(flag: str, tmp_path: Path) -> None:
    """Boxes on a difficult object, or in a crowd, are not misses."""
    spec = tiny_multibox.spec(tmp_path / "net")
    network, (image,) = tiny_multibox.network(spec), tiny_multibox.annotated(tmp_path, 1)
    for layer in network.predictor.outputs:
        layer.weight.data[1:].zero_()  # boxes are priors, logits are as they are
    scale = np.array([160 / 85, 120 / 64] * 2)
    truth = GroundTruth.from_boxes([[21, 13, 51, 43] * scale, [0, 0, 34, 34] * scale], [1, 1])
    image = replace(image, truth=replace(truth, **{flag: np.array([False, True])}))
    with torch.inference_mode():
        pixels, seen = views(spec.multibox).plain(read_image(image.path), image.truth)
        batch = torch.from_numpy(padded([pixels], 64, mean_colour(network.backbone.spec))[0])
        output = network(batch)
    right, ignored = iou(output.priors.numpy(), seen.boxes).T >= 0.5
    if flag == "crowd":
        corners = output.priors.numpy().clip(0, 34)
        inside = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
        ignored = inside >= 0.5 * (output.priors[:, 2:] - output.priors[:, :2]).prod(dim=1).numpy()
    own = (output.shape_index == 0).numpy()
    assert (ignored & ~right)[own].any()
    calibrate(network, [image], spec.multibox, CPU, False)
    counted = own & (right | ~ignored)
    wanted = platt(output.logits[0].numpy()[counted], right[counted])
    np.testing.assert_allclose(network.predictor.calibration[0].numpy(), wanted, rtol=1e-3, atol=1e-3)
    assert not np.allclose(wanted, platt(output.logits[0].numpy()[own], right[own]), rtol=1e-2)


@pytest.mark.parametrize("max_iter", [0, 2])
def test_a_start_from_a_calibrated_network_learns_from_its_plain_logits(max_iter: int, tmp_path: Path) -> None:
    """No iterations: the network is saved as it starts."""
    images = tiny_multibox.annotated(tmp_path)
    before = tiny_multibox.network(tiny_multibox.spec(tmp_path / "net"))
    plain = tmp_path / "plain.safetensors"
    save_file(before.state_dict(), plain)
    before.predictor.calibration.copy_(torch.tensor([[2.0, -1.0], [0.5, 3.0]]))
    calibrated = tmp_path / "calibrated.safetensors"
    save_file(before.state_dict(), calibrated)
    solver = replace(SOLVER, max_iter=max_iter)
    wanted, _ = train(tmp_path / "one", images, [], replace(solver, weights=str(plain)))
    network, _ = train(tmp_path / "two", images, [], replace(solver, weights=str(calibrated)))
    lines = [[1.0, 0.0]] * 2 if max_iter else [[2.0, -1.0], [0.5, 3.0]]
    assert network.predictor.calibration.tolist() == lines
    for (name, one), (_, other) in zip(wanted.named_parameters(), network.named_parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0, msg=name)


def test_a_training_from_a_calibrated_network_ends_with_the_same_bytes_after_a_kill(tmp_path: Path) -> None:
    images = tiny_multibox.annotated(tmp_path)
    before = tiny_multibox.network(tiny_multibox.spec(tmp_path / "net"))
    before.predictor.calibration.copy_(torch.tensor([[2.0, -1.0], [0.5, 3.0]]))
    save_file(before.state_dict(), tmp_path / "start.safetensors")
    solver = replace(SOLVER, weights=str(tmp_path / "start.safetensors"))
    whole, _ = train(tmp_path / "whole", images, [], solver, calibrate=True)
    (tmp_path / "whole" / "snapshots" / "iteration_0000002.pt").unlink(missing_ok=True)
    assert list((tmp_path / "whole" / "snapshots").glob("*"))
    resumed, _ = train(tmp_path / "whole", images, [], solver, calibrate=True)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_proposed_boxes_lie_in_the_image_and_not_in_its_padding(tmp_path: Path) -> None:
    spec = tiny_multibox.spec(tmp_path / "net")
    network = tiny_multibox.network(spec)
    pixels = np.full((40, 50, 3), 90, dtype=np.uint8)
    found = proposed(network, pixels, spec.multibox, CPU, False, count=500, nms_iou=1)
    assert len(found)
    assert (found.boxes <= [50, 40, 50, 40]).all()


def test_sides_of_a_pyramid_are_padded() -> None:
    assert multiple(MultiBoxConfig()) == 64
    assert multiple(MultiBoxConfig(form=Form.grids)) == 1
