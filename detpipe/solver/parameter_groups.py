"""Builds the optimiser and its parameter groups with lr_mult and decay_mult, as in Caffe.

Two rules of fine-tuning are defaults here: new layers learn faster than pretrained ones, and biases and norm layers
have no weight decay. Caffe has no such defaults; its network prototxt sets the factors of each parameter (default 1).
Factors from a prototxt are also used here, multiplied by `lr_mult` and `decay_mult`.
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
    """Group the trainable parameters of `module` for a torch optimiser, in a stable order.

    Each group has params, names, lr_mult (new_lr_mult for parameters of `new_modules`, else 1; times the factor in
    `lr_mult`) and weight_decay (`weight_decay` times the factor in `decay_mult`; without such a factor it is 0 for
    biases and other one-dimensional parameters, such as the scale of a norm layer). Keys of `lr_mult` and `decay_mult`
    are parameter names or shell patterns (`*.bias`); if several match, the last one is used. stated: from parameter
    name to (lr_mult, decay_mult) of the network itself, which are multiplied by the factors above. Frozen parameters
    are in no group.

    Raises ValueError if nothing is trainable, and for a pattern that matches no parameter.
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
        raise ValueError("expected at least one trainable parameter, got none: everything is frozen; freeze less")
    return [groups[key] for key in sorted(groups)]


def multipliers(module: nn.Module, setting: str, patterns: Mapping[str, float]) -> dict[str, float]:
    """From parameter name to factor, for the parameters that match a pattern.

    Raises ValueError for a pattern that matches no parameter.
    """
    names = [name for name, _ in module.named_parameters()]
    found: dict[str, float] = {}
    for pattern, factor in patterns.items():
        fitting = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not fitting:
            raise ValueError(
                f"solver.{setting}: expected names of parameters such as {names[:2]}, got {pattern!r}, which fits none"
            )
        found.update(dict.fromkeys(fitting, factor))
    return found


def make_optimizer(config: SolverConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make torch's optimiser or Caffe's rule, as in config.type, for `groups` (see parameter_groups)."""
    groups = [{"lr": config.base_lr * group["lr_mult"], **group} for group in groups]
    if config.type is Optimizer.sgd:
        return torch.optim.SGD(groups, lr=config.base_lr, momentum=config.momentum)
    if config.type is Optimizer.adamw:
        betas = (config.momentum, config.momentum2)
        # On a CPU, one pass over each tensor instead of ten. On others torch chooses.
        on_cpu = all(one.device.type == "cpu" for group in groups for one in group["params"])
        fused = True if on_cpu else None
        return torch.optim.AdamW(groups, lr=config.base_lr, betas=betas, eps=config.delta, fused=fused)
    return CaffeOptimizer(
        groups,
        rule=caffe_rule(config),
        regularization=config.regularization_type,
        decoupled=config.type is Optimizer.caffe_adamw,
    )


def caffe_rule(config: SolverConfig) -> Rule:
    """The Caffe rule of config.type. Raises ValueError for torch's types."""
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
