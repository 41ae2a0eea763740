"""Caffe's updates against their formulas on least squares, in numpy and float64 (as test_gradient_based_solver.cpp)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detpipe.solver.caffe_updates import CaffeOptimizer, Sgd, clip_summed_gradients
from detpipe.solver.lr_policy import LrPolicy, Policy
from detpipe.solver.parameter_groups import caffe_rule, make_optimizer
from detpipe.solver.solver_config import Optimizer, Regularization, SolverConfig
from tests.solver.least_squares import Array, Training, doubles, gradient, linear, solver_config

STEPS = 6
DELTA = 1e-3

Formula = Callable[[dict[str, Array], Array, float, float], Array]
"""(state, gradient with decay, rate, momentum) -> what is taken from the weights."""


def sgd(s: dict[str, Array], g: Array, r: float, m: float) -> Array:
    s["v"] = m * s.get("v", 0 * g) + r * g
    return s["v"]


def nesterov(s: dict[str, Array], g: Array, r: float, m: float) -> Array:
    old = s.get("v", 0 * g)
    s["v"] = m * old + r * g
    return (1 + m) * s["v"] - m * old


def adagrad(s: dict[str, Array], g: Array, r: float, m: float) -> Array:
    s["h"] = s.get("h", 0 * g) + g**2
    return r * g / (np.sqrt(s["h"]) + DELTA)


def rmsprop(s: dict[str, Array], g: Array, r: float, m: float) -> Array:
    s["h"] = 0.9 * s.get("h", 0 * g) + 0.1 * g**2
    return r * g / (np.sqrt(s["h"]) + DELTA)


def adadelta(s: dict[str, Array], g: Array, r: float, m: float) -> Array:
    s["g"] = m * s.get("g", 0 * g) + (1 - m) * g**2
    u = g * np.sqrt((s.get("u", 0 * g) + DELTA) / (s["g"] + DELTA))
    s["u"] = m * s.get("u", 0 * g) + (1 - m) * u**2
    return r * u


def adam(s: dict[str, Array], g: Array, r: float, m: float) -> Array:
    s["t"] = s.get("t", np.zeros(())) + 1
    s["m"] = m * s.get("m", 0 * g) + (1 - m) * g
    s["v"] = 0.99 * s.get("v", 0 * g) + 0.01 * g**2
    return r * np.sqrt(1 - 0.99 ** s["t"]) / (1 - m ** s["t"]) * s["m"] / (np.sqrt(s["v"]) + DELTA)


FORMULAS: dict[Optimizer, Formula] = {
    Optimizer.caffe_sgd: sgd,
    Optimizer.caffe_nesterov: nesterov,
    Optimizer.caffe_adagrad: adagrad,
    Optimizer.caffe_rmsprop: rmsprop,
    Optimizer.caffe_adadelta: adadelta,
    Optimizer.caffe_adam: adam,
    Optimizer.caffe_adamw: adam,
}
WITHOUT_MOMENTUM = (Optimizer.caffe_adagrad, Optimizer.caffe_rmsprop)
CASES = [(kind, momentum) for kind in FORMULAS for momentum in ([0.0] if kind in WITHOUT_MOMENTUM else [0.0, 0.9])]


def settings(kind: Optimizer, momentum: float, **values: Any) -> SolverConfig:
    """Six iterations whose rate falls, with constants that show."""
    return solver_config(
        type=kind,
        momentum=momentum,
        momentum2=0.99,
        rms_decay=0.9,
        delta=DELTA,
        lr=LrPolicy(policy=Policy.inv, gamma=0.5, power=0.75),
        max_iter=STEPS,
        **values,
    )


def by_formula(config: SolverConfig, network: nn.Linear, decay_of_bias: float, lr_mult_of_bias: float) -> list[Array]:
    """Weights and bias after the training, by numpy."""
    formula = FORMULAS[config.type]
    decoupled = config.type is Optimizer.caffe_adamw
    towards = np.sign if config.regularization_type is Regularization.l1 else np.positive
    parameters = [network.weight.detach().numpy().T.copy(), network.bias.detach().numpy().copy()]
    states: list[dict[str, Array]] = [{}, {}]
    for step in range(config.max_iter):
        first = step * config.iter_size
        gradients = gradient(*parameters, [doubles(first + part) for part in range(config.iter_size)])
        if config.clip_gradients is not None:
            norm = config.iter_size * math.sqrt(sum(float((g**2).sum()) for g in gradients))
            gradients = [g * min(1.0, config.clip_gradients / norm) for g in gradients]
        for which, (decay, mult) in enumerate([(config.weight_decay, 1.0), (decay_of_bias, lr_mult_of_bias)]):
            rate = config.base_lr * (1 + 0.5 * step) ** -0.75 * mult
            pull = decay * towards(parameters[which])
            g = gradients[which] + (0 if decoupled else pull)
            update = formula(states[which], g, rate, config.momentum) + (rate * pull if decoupled else 0)
            parameters[which] = parameters[which] - update
    return parameters


def assert_formula(folder: Path, config: SolverConfig) -> None:
    """Train with a bias that learns twice as fast and decays half as much, and compare with numpy."""
    network = linear()
    wanted = by_formula(config, network, 0.5 * config.weight_decay, 2.0)
    groups = [
        {"params": [network.weight], "lr_mult": 1.0, "weight_decay": config.weight_decay},
        {"params": [network.bias], "lr_mult": 2.0, "weight_decay": 0.5 * config.weight_decay},
    ]
    Training(folder, network, config, make_batch=doubles, groups=groups).run()
    np.testing.assert_allclose(network.weight.detach().numpy().T, wanted[0], rtol=1e-10)
    np.testing.assert_allclose(network.bias.detach().numpy(), wanted[1], rtol=1e-10)


@pytest.mark.parametrize("iter_size", [1, 3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("kind", "momentum"), CASES)
def test_the_update_is_its_formula(
    tmp_path: Path, kind: Optimizer, momentum: float, weight_decay: float, iter_size: int
) -> None:
    assert_formula(tmp_path, settings(kind, momentum, weight_decay=weight_decay, iter_size=iter_size))


@pytest.mark.parametrize(("kind", "momentum"), CASES)
def test_l1_pulls_by_the_sign(tmp_path: Path, kind: Optimizer, momentum: float) -> None:
    assert_formula(tmp_path, settings(kind, momentum, weight_decay=0.1, regularization_type=Regularization.l1))


@pytest.mark.parametrize("iter_size", [1, 3])
def test_clipping_is_of_the_sum_and_before_the_decay(tmp_path: Path, iter_size: int) -> None:
    assert_formula(
        tmp_path,
        settings(Optimizer.caffe_sgd, 0.9, weight_decay=0.1, iter_size=iter_size, clip_gradients=0.5),
    )


def weights_after(config: SolverConfig, folder: Path) -> Array:
    network = linear()
    Training(folder, network, config, make_batch=doubles).run()
    weights: Array = network.weight.detach().numpy()
    return weights


def test_where_the_rate_is_inside_the_velocity_it_is_kept(tmp_path: Path) -> None:
    """The two SGDs agree while the rate is fixed, and part when it falls: Caffe's velocity still has the old rate."""
    fixed, falling = LrPolicy(policy=Policy.fixed), LrPolicy(policy=Policy.step, gamma=0.1, stepsize=4)
    by_type = {
        kind: [
            weights_after(solver_config(type=kind, lr=lr, max_iter=6), tmp_path / f"{kind.value}{lr.policy.value}")
            for lr in (fixed, falling)
        ]
        for kind in (Optimizer.sgd, Optimizer.caffe_sgd)
    }
    of_torch, of_caffe = by_type[Optimizer.sgd], by_type[Optimizer.caffe_sgd]
    np.testing.assert_allclose(of_torch[0], of_caffe[0], rtol=1e-10)
    assert np.abs(of_torch[1] - of_caffe[1]).max() > 1e-3
    # In numbers, for a gradient of 1, momentum 0.5 and rates 1, 0.1: v = 1, then 0.5 + 0.1 = 0.6 of Caffe; torch has
    # v = 1, then 1.5, of which 0.15 is taken.
    for kind, wanted in ((Optimizer.caffe_sgd, -1.6), (Optimizer.sgd, -1.15)):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        config = SolverConfig(type=kind, momentum=0.5, weight_decay=0)
        optimizer = make_optimizer(config, [{"params": [weight], "lr_mult": 1.0, "weight_decay": 0.0}])
        for rate in (1.0, 0.1):
            optimizer.param_groups[0]["lr"] = rate
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert weight.item() == pytest.approx(wanted)


def test_a_parameter_without_gradient_decays() -> None:
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = CaffeOptimizer(
        [{"params": [weight], "lr": 0.5, "weight_decay": 0.1}], rule=Sgd(0.9), regularization=Regularization.l2
    )
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 - 0.5 * 0.1 * 2.0)


def test_clipping_by_hand() -> None:
    pair = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    pair[0].grad, pair[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_summed_gradients(pair, 10.0, 2) == pytest.approx(10)
    assert [float(p.grad) for p in pair if p.grad is not None] == [3, 4]
    assert clip_summed_gradients(pair, 5.0, 2) == pytest.approx(10)
    assert [float(p.grad) for p in pair if p.grad is not None] == pytest.approx([1.5, 2])
    assert clip_summed_gradients([], 1.0, 1) == 0
    assert clip_summed_gradients([nn.Parameter(torch.zeros(1))], 1.0, 1) == 0


def test_torchs_types_have_no_rule_of_caffe() -> None:
    with pytest.raises(ValueError, match="expected one of Caffe's, got adamw"):
        caffe_rule(SolverConfig())
