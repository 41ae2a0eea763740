"""The optimiser of a training, and its parameters in groups with their own lr_mult and decay_mult, as in Caffe.

Two habits of fine-tuning stand here: layers that start from nothing learn faster than those with pretrained weights,
and biases and norms don't decay. Caffe has neither: there the network's prototxt says it parameter by parameter, and
without a word all have a factor of 1. What a prototxt says counts here, too, times what `lr_mult` and `decay_mult` say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from detpipe.solver.caffe_updates import AdaDelta, AdaGrad, Adam, CaffeOptimizer, Nesterov, RmsProp, Rule, Sgd
from detpipe.solver.solver_config import Optimizer, SolverConfig


def parameter_groups(
    module: nn.Module,
    *,
    new_modules: Collection[nn.Module],
    new_lr_mult: float,
    weight_decay: float,
    lr_mult: Mapping[str, float] | None = None,
    decay_mult: Mapping[str, float] | None = None,
    stated: Mapping[str, tuple[float, float]] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of `module` in groups for a torch optimiser, in a stable order.

    Each group: params, names, lr_mult (new_lr_mult for parameters of `new_modules`, else 1; times the factor of
    `lr_mult`), weight_decay (`weight_decay` times the factor of `decay_mult`; where that has none, 0 for biases and
    for whatever has one dimension, as a norm's scale). The factors' keys are parameters' names, or patterns of them as
    in a shell (`*.bias`); of several that match, the last counts. Frozen parameters are in no group. stated: by
    parameter's name lr_mult and decay_mult that the network itself states; both are multiplied with the above.

    Raises ValueError where nothing is trainable, and for a pattern that fits no parameter.
    """
    rate_of, decay_of = (
        multipliers(module, "lr_mult", lr_mult or {}),
        multipliers(module, "decay_mult", decay_mult or {}),
    )
    new = {id(parameter) for new_module in new_modules for parameter in new_module.parameters()}
    groups: dict[tuple[bool, bool, float, float], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_new, is_weight = id(parameter) in new, parameter.ndim > 1
        own_rate, own_decay = (stated or {}).get(name, (1.0, 1.0))
        rate = (new_lr_mult if is_new else 1.0) * rate_of.get(name, 1.0) * own_rate
        decay = weight_decay * decay_of.get(name, 1.0 if is_weight else 0.0) * own_decay
        group = groups.setdefault(
            (is_new, is_weight, rate, decay), {"params": [], "names": [], "lr_mult": rate, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ValueError("expected at least one trainable parameter, got none: everything is frozen")
    return [groups[key] for key in sorted(groups)]


def multipliers(module: nn.Module, setting: str, patterns: Mapping[str, float]) -> dict[str, float]:
    """Parameter's name -> factor, for those that a pattern fits. Raises ValueError for a pattern that fits none."""
    names = [name for name, _ in module.named_parameters()]
    found: dict[str, float] = {}
    for pattern, factor in patterns.items():
        fitting = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not fitting:
            raise ValueError(
                f"solver.{setting}: expected names of parameters, as {names[:2]}, got {pattern!r}, that fits none"
            )
        found.update(dict.fromkeys(fitting, factor))
    return found


def make_optimizer(config: SolverConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """torch's optimiser, or Caffe's rule by its name, over `groups` (see parameter_groups)."""
    groups = [{"lr": config.base_lr * group["lr_mult"], **group} for group in groups]
    if config.type is Optimizer.sgd:
        return torch.optim.SGD(groups, lr=config.base_lr, momentum=config.momentum)
    if config.type is Optimizer.adamw:
        betas = (config.momentum, config.momentum2)
        return torch.optim.AdamW(groups, lr=config.base_lr, betas=betas, eps=config.delta)
    return CaffeOptimizer(
        groups,
        rule=caffe_rule(config),
        regularization=config.regularization_type,
        decoupled=config.type is Optimizer.caffe_adamw,
    )


def caffe_rule(config: SolverConfig) -> Rule:
    """Caffe's formula of config.type. Raises ValueError for torch's types."""
    match config.type:
        case Optimizer.caffe_sgd:
            return Sgd(config.momentum)
        case Optimizer.caffe_nesterov:
            return Nesterov(config.momentum)
        case Optimizer.caffe_adagrad:
            return AdaGrad(config.delta)
        case Optimizer.caffe_rmsprop:
            return RmsProp(config.rms_decay, config.delta)
        case Optimizer.caffe_adadelta:
            return AdaDelta(config.momentum, config.delta)
        case Optimizer.caffe_adam | Optimizer.caffe_adamw:
            return Adam(config.momentum, config.momentum2, config.delta)
        case _:
            raise ValueError(f"solver.type: expected one of Caffe's, got {config.type.value}")
