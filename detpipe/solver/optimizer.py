"""The optimiser of a training: torch's own, or Caffe's rule by its name."""

from __future__ import annotations

from typing import Any

import torch

from detpipe.solver.caffe_updates import AdaDelta, AdaGrad, Adam, CaffeOptimizer, Nesterov, RmsProp, Rule, Sgd
from detpipe.solver.solver_config import Optimizer, SolverConfig


def make_optimizer(config: SolverConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser over `groups` (see parameter_groups), each with "lr_mult" and "weight_decay"."""
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
            raise ValueError(f"solver.type: wanted one of Caffe's, got {config.type.value}")
