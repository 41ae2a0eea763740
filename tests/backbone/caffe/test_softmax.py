from __future__ import annotations

import math

import pytest
import torch

from tests.backbone.caffe.one_layer import make, run

LOGS = torch.tensor([[1.0, 2, 5], [2, 2, 4]]).log()  # probabilities 1/8 2/8 5/8, 2/8 2/8 4/8


def test_softmax_along_an_axis() -> None:
    assert run('type: "Softmax"', LOGS).flatten().tolist() == pytest.approx([0.125, 0.25, 0.625, 0.25, 0.25, 0.5])
    assert run('type: "Softmax" softmax_param { axis: 0 }', LOGS)[:, 1].tolist() == pytest.approx([0.5, 0.5])


def loss(setting: str, scores: torch.Tensor, labels: torch.Tensor) -> float:
    return float(run(f'type: "SoftmaxWithLoss" {setting}', scores, labels))


def test_the_loss_by_hand() -> None:
    labels = torch.tensor([2, 0])
    assert loss("", LOGS, labels) == pytest.approx((math.log(8 / 5) + math.log(4)) / 2)
    assert loss("", LOGS, labels.float()) == pytest.approx((math.log(8 / 5) + math.log(4)) / 2)


@pytest.mark.parametrize(
    ("setting", "divisor"),
    [
        ("", 3),
        ("normalization: VALID", 3),
        ("normalization: FULL", 4),
        ("normalization: BATCH_SIZE", 2),
        ("normalization: NONE", 1),
        ("normalize: true", 3),
        ("normalize: false", 2),
        ("normalize: false normalization: FULL", 4),
    ],
)
def test_normalisation_over_places_with_an_ignored_label(setting: str, divisor: int) -> None:
    scores = torch.zeros(2, 4, 1, 2)  # every class 1/4
    labels = torch.tensor([0, 255, 2, 3]).reshape(2, 1, 1, 2)
    got = loss(f"loss_param {{ ignore_label: 255 {setting} }}", scores, labels)
    assert got == pytest.approx(3 * math.log(4) / divisor)


def test_all_ignored_and_no_images_are_no_loss() -> None:
    assert loss("loss_param { ignore_label: 1 }", torch.zeros(2, 3), torch.tensor([1, 1])) == 0
    for mode in ("VALID", "FULL", "BATCH_SIZE", "NONE"):
        net = make(f'type: "SoftmaxWithLoss" loss_param {{ normalization: {mode} }}', (2, 3), (2,))
        assert net(torch.zeros(0, 3), torch.zeros(0))["y"].item() == 0


def test_a_hopeless_example_has_a_limited_loss_and_its_gradient() -> None:
    scores = torch.tensor([[200.0, 0.0]], requires_grad=True)
    net = make('type: "SoftmaxWithLoss"', (1, 2), (1,))
    out = net(scores, torch.tensor([1]))["y"]
    assert out.item() == pytest.approx(-math.log(torch.finfo(torch.float32).tiny))  # Caffe's 87.3365
    out.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1, -1]]


def test_probabilities_as_second_top() -> None:
    net = make('type: "SoftmaxWithLoss" top: "loss" top: "prob"', (2, 3), (2,))
    out = net(LOGS, torch.tensor([2, 0]))
    assert out["prob"][0].tolist() == pytest.approx([0.125, 0.25, 0.625])


def test_accuracy_by_hand() -> None:
    scores, labels = torch.tensor([[1.0, 3, 2], [3, 1, 2]]), torch.tensor([1, 2])
    assert run('type: "Accuracy"', scores, labels).item() == 0.5
    assert run('type: "Accuracy" accuracy_param { top_k: 2 }', scores, labels).item() == 1
    assert run('type: "Accuracy" accuracy_param { ignore_label: 1 }', scores, labels).item() == 0
    assert run('type: "Accuracy"', torch.zeros(2, 3), labels).item() == 0  # equal scores are no success
    assert make('type: "Accuracy"', (2, 3), (2,))(scores[:0], labels[:0])["y"].item() == 0


def test_accuracy_over_places() -> None:
    scores = torch.tensor([[[1.0, 0], [0, 1]]]).reshape(1, 2, 1, 2)
    assert run('type: "Accuracy"', scores, torch.tensor([0, 0]).reshape(1, 1, 1, 2)).item() == 0.5


@pytest.mark.parametrize(
    ("layer", "wrong"),
    [
        ('type: "SoftmaxWithLoss"', "expected 2 labels for scores"),
        ('type: "Accuracy"', "expected 2 labels for scores"),
    ],
)
def test_labels_of_another_number(layer: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        make(layer, (2, 3), (3,))


def test_labels_that_are_no_class() -> None:
    with pytest.raises(ValueError, match="expected labels of 0 to 2, got 0 to 3"):
        run('type: "SoftmaxWithLoss"', LOGS, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="at most 3 classes"):
        make('type: "Accuracy" accuracy_param { top_k: 4 }', (2, 3), (2,))
