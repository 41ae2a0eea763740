"""Box regression: the loss by hand, the ridge solution against brute force, and deltas that are known."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pytest
import torch

from detpipe.heads.bbox_regressor import FEATURE_NORM, TARGET_STD, BoxRegressor, ridge_regression
from detpipe.heads.region_head import BoxLoss

STD = torch.tensor(TARGET_STD)
Array = npt.NDArray[np.float64]


def regressor(width: int, classes: int) -> BoxRegressor:
    return BoxRegressor(width, classes, generator=torch.Generator().manual_seed(0))


def features_of(n: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0.5, 1, (n, width)).astype(np.float32)


def test_shapes_and_units() -> None:
    """The layer gives deltas in units of TARGET_STD; what comes out are deltas, in training and in evaluation."""
    head = regressor(6, 3)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    in_training, in_use = head.train()(x), head.eval()(x)
    assert in_training.shape == (5, 3, 4)
    torch.testing.assert_close(in_training, in_use, rtol=0, atol=0)
    torch.testing.assert_close(in_use, head.linear(x).unflatten(1, (3, 4)) * torch.tensor([0.1, 0.1, 0.2, 0.2]))
    torch.testing.assert_close(head.normalise(in_use), head.linear(x).unflatten(1, (3, 4)))
    assert head(torch.zeros(0, 6)).shape == (0, 3, 4)
    assert "std" not in head.state_dict()


def test_class_k_has_rows_4k_minus_4_of_the_layer() -> None:
    head = regressor(2, 3)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.arange(12.0))
    assert head.normalise(head(torch.zeros(1, 2))).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]


def test_loss_by_hand() -> None:
    """Smooth L1 with its corner at 1, in units of TARGET_STD; summed over 4 deltas, over all 4 regions."""
    scaled = torch.zeros(4, 2, 4)
    scaled[1, 0] = torch.tensor([0.5, 3.0, 0.0, 0.0])  # class 1, the region's own
    scaled[1, 1] = 100.0  # class 2, not its own
    scaled[2, 1] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    labels = torch.tensor([0, 1, 2, 0])
    targets = torch.tensor([[9.0] * 4, [0.0, 0.1, 0.0, 0.0], [0.0, 0.0, 0.0, 0.4], [9.0] * 4])
    # Region 1: |0.5| -> 0.125, |3 - 1| -> 1.5. Region 2: |1| -> 0.5, |1 - 2| -> 0.5.
    loss = regressor(6, 2).loss(scaled * STD, labels, targets)
    assert float(loss) == pytest.approx((0.125 + 1.5 + 0.5 + 0.5) / 4)


def test_generalized_iou_by_hand() -> None:
    """A region that is moved onto its object loses nothing. One that half covers it: IoU 1/3, and no part of the box
    around both is without either. One apart: IoU 0, and half of the box around both is without."""
    scaled = torch.zeros(4, 2, 4)
    scaled[0, 1] = torch.tensor([2.0, 0.0, 1.0, 0.0])
    labels = torch.tensor([2, 1, 1, 0])
    targets = torch.tensor([[0.2, 0.0, 0.2, 0.0], [0.5, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [9.0] * 4])
    loss = regressor(6, 2).loss(scaled * STD, labels, targets, kind=BoxLoss.giou)
    assert float(loss) == pytest.approx((0 + 2 / 3 + 3 / 2) / 4, rel=1e-5)


def test_generalized_iou_moves_boxes_nearer() -> None:
    """Steps down its gradient bring the box onto its object."""
    labels, targets = torch.tensor([1]), torch.tensor([[0.3, -0.2, 0.4, -0.3]])
    head, scaled = regressor(6, 1), torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([scaled], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(scaled * STD, labels, targets, kind=BoxLoss.giou).backward()
        optimizer.step()
    torch.testing.assert_close(scaled.detach()[0] * STD, targets, atol=0.02, rtol=0)


def test_gradient_goes_to_the_regions_own_class_alone() -> None:
    head = regressor(6, 2)
    head.loss(head(torch.ones(1, 6)), torch.tensor([2]), torch.ones(1, 4)).backward()
    assert head.linear.bias.grad is not None
    assert head.linear.bias.grad[:4].eq(0).all()
    assert head.linear.bias.grad[4:].ne(0).all()


@pytest.mark.parametrize("kind", BoxLoss)
@pytest.mark.parametrize("n", [0, 3])
def test_no_foreground_gives_zero_and_a_gradient(n: int, kind: BoxLoss) -> None:
    head = regressor(6, 2)
    loss = head.loss(head(torch.ones(n, 6)), torch.zeros(n, dtype=torch.int64), torch.zeros(n, 4), kind=kind)
    assert float(loss.detach()) == 0
    loss.backward()
    assert head.linear.weight.grad is not None
    assert head.linear.weight.grad.eq(0).all()


def penalised(x: Array, t: Array, ridge: float) -> tuple[Array, Array]:
    """The textbook solution, the bias as one more column that is not penalised."""
    scale = FEATURE_NORM / np.linalg.norm(x, axis=1).mean()
    design = np.hstack([x * scale, np.ones((len(x), 1))])
    penalty = ridge * np.eye(design.shape[1])
    penalty[-1, -1] = 0
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ t)
    return solution[:-1] * scale, solution[-1]


@pytest.mark.parametrize("ridge", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize("n", [200, 12])
def test_ridge_is_the_textbooks(ridge: float, n: int) -> None:
    x = features_of(n, 20).astype(np.float64)
    t = np.random.default_rng(1).normal(0, TARGET_STD, (n, 4))
    for got, want in zip(ridge_regression(x, t, ridge), penalised(x, t, ridge), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-9)


def test_ridge_is_a_minimum() -> None:
    x, t = features_of(50, 5).astype(np.float64), np.random.default_rng(1).normal(size=(50, 4))
    scale = FEATURE_NORM / np.linalg.norm(x, axis=1).mean()

    def cost(w: Array, b: Array) -> float:
        return float(((x @ w + b - t) ** 2).sum() + 100 * ((w / scale) ** 2).sum())

    w, b = ridge_regression(x, t, 100.0)
    generator = np.random.default_rng(2)
    for _ in range(20):
        assert cost(w, b) <= cost(w + generator.normal(0, 0.01, w.shape), b + generator.normal(0, 0.01, b.shape))


def test_ridge_does_not_depend_on_the_scale_of_features() -> None:
    x, t = features_of(50, 5), np.random.default_rng(1).normal(size=(50, 4))
    w, b = ridge_regression(x, t, 1000.0)
    larger_w, larger_b = ridge_regression(x * 64, t, 1000.0)
    np.testing.assert_allclose(larger_w * 64, w, rtol=1e-6)
    np.testing.assert_allclose(larger_b, b, rtol=1e-6)


def test_ridge_of_one_region_and_of_constant_targets_is_their_mean() -> None:
    for n in (1, 30):
        w, b = ridge_regression(features_of(n, 5), np.tile([0.1, -0.2, 0.3, 0.0], (n, 1)), 1000.0)
        np.testing.assert_allclose(w, 0, atol=1e-9)
        np.testing.assert_allclose(b, [0.1, -0.2, 0.3, 0.0], atol=1e-9)


def test_ridge_of_zero_features() -> None:
    w, b = ridge_regression(np.zeros((3, 2)), np.arange(12.0).reshape(3, 4), 1.0)
    np.testing.assert_allclose(w, 0)
    np.testing.assert_allclose(b, [4, 5, 6, 7])


def test_ridge_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one region"):
        ridge_regression(np.zeros((0, 3)), np.zeros((0, 4)), 1.0)


def test_solve_recovers_linear_deltas_of_each_class() -> None:
    generator = np.random.default_rng(3)
    features = features_of(400, 6)
    labels = generator.integers(1, 3, 400)
    w, b = generator.normal(0, 0.1, (2, 6, 4)), generator.normal(0, 0.1, (2, 4))
    deltas = np.einsum("nd,ndt->nt", features, w[labels - 1]) + b[labels - 1]
    head = regressor(6, 2)
    head.solve(features, labels, deltas.astype(np.float32), ridge=1e-3)
    with torch.no_grad():
        got = head.eval()(torch.from_numpy(features))
    for k in (0, 1):
        np.testing.assert_allclose(got[:, k], features @ w[k] + b[k], atol=1e-4)


def test_solve_leaves_boxes_of_a_class_without_regions(caplog: pytest.LogCaptureFixture) -> None:
    head = regressor(6, 3)
    with caplog.at_level(logging.WARNING):
        head.solve(features_of(10, 6), np.full(10, 2), np.ones((10, 4), dtype=np.float32))
    assert [record.args for record in caplog.records] == [(1,), (3,)]
    got = head.eval()(torch.ones(1, 6))
    assert got[0, 0].tolist() == got[0, 2].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(got[0, 1], torch.ones(4))


def test_solve_without_any_region() -> None:
    head = regressor(6, 2)
    head.solve(features_of(0, 6), np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32))
    assert head.eval()(torch.ones(1, 6)).eq(0).all()
