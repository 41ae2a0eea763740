"""Parameters in groups with their own share of learning rate and weight decay, in Caffe's manner (lr_mult, decay_mult).

Two habits of fine-tuning stand here: layers that start from nothing learn faster than those with pretrained weights,
and biases and norms don't decay.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn


def parameter_groups(
    module: nn.Module, *, new_modules: Collection[nn.Module], new_lr_mult: float, weight_decay: float
) -> list[dict[str, Any]]:
    """The trainable parameters of `module` in up to four groups for a torch optimiser, in a stable order.

    Each group: params, names, lr_mult (new_lr_mult for parameters of `new_modules`, else 1), weight_decay
    (0 for biases and for whatever has one dimension, as a norm's scale). Frozen parameters are in no group; nothing
    trainable raises ValueError.
    """
    new = {id(parameter) for new_module in new_modules for parameter in new_module.parameters()}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        key = (id(parameter) in new, parameter.ndim > 1)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "names": [],
                "lr_mult": new_lr_mult if key[0] else 1.0,
                "weight_decay": weight_decay if key[1] else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ValueError("wanted at least one trainable parameter, got none: everything is frozen")
    return [groups[key] for key in sorted(groups)]
