"""One interface for every image classifier: input spec, pooled features, named feature maps, stages to freeze.

N: images, H, W: height and width of the input, C: channels of a map.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detpipe.backbone.depthwise_conv import is_depthwise, use_fast_backward
from detpipe.backbone.input_spec import InputSpec


@dataclass(frozen=True)
class FeatureMap:
    """stride: input pixels per step of the map. channels: its depth."""

    stride: int
    channels: int


class Backbone(nn.Module):
    """An image classifier without its head.

    A subclass gives `forward`, `forward_maps` and `stages`. `forward` turns (N, 3, H, W) float, normalised by
    `spec`, into (N, feature_width) pooled features; N = 0 gives (0, feature_width).

    spec: what it wants to see. feature_width: length of a feature vector. feature_maps: what `forward_maps` can
    give, from the input up. classifier: from features to ImageNet's 1000 logits, None where there is none.
    """

    def __init__(self, spec: InputSpec, feature_width: int, feature_maps: dict[str, FeatureMap]) -> None:
        super().__init__()
        self.spec = spec
        self.feature_width = feature_width
        self.feature_maps = feature_maps
        self.classifier: nn.Module | None = None
        self._frozen_stages = 0
        self._frozen_batch_norm = False

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """Name and module of each stage from the input up; the stem counts as one, the classifier as none."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled features. (N, 3, H, W) float -> (N, feature_width)."""
        raise NotImplementedError

    def forward_maps(self, x: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The named feature maps, in the order of `names`: each (N, C, H / stride, W / stride), roughly.

        No names give {}. Raises ValueError for a name that is not in `feature_maps`.
        """
        raise NotImplementedError

    def multipliers(self) -> dict[str, tuple[float, float]]:
        """Factors of learning rate and weight decay that the network's own text states, by parameter; others are 1."""
        return {}

    def load_imagenet_weights(self) -> None:
        """Load the weights that it is published with, with `classifier`. Raises ValueError where there are none."""
        raise ValueError(
            f"{type(self).__name__} has no ImageNet weights of its own; say backbone.weights=FILE, or none (random)"
        )

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """ImageNet's logits. (N, 3, H, W) -> (N, 1000). Raises ValueError where there is no classifier."""
        if self.classifier is None:
            raise ValueError(f"{type(self).__name__} has no ImageNet classifier: its weights came without one")
        logits: torch.Tensor = self.classifier(self(x))
        return logits

    def freeze(self, stages: int = 0, depthwise: bool = False, batch_norm: bool = True) -> None:
        """Say anew which parameters training may not change; what was frozen before and is not named here thaws.

        stages: the first so many of `stages`, whole: no gradients, always in evaluation mode.
        depthwise: the kernels of all depthwise convolutions.
        batch_norm: scale, shift and running statistics of all batch norms; these stay so after `train()`.
        Raises ValueError for more stages than there are.
        """
        if not 0 <= stages <= len(self.stages):
            names = [name for name, _ in self.stages]
            raise ValueError(f"freeze: expected 0 to {len(names)} stages of {names}, got {stages}")
        self._frozen_stages, self._frozen_batch_norm = stages, batch_norm
        self.requires_grad_(True)
        for module in self._frozen_modules():
            module.requires_grad_(False)
        if depthwise:
            for convolution in self.depthwise_modules():
                convolution.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but what is frozen."""
        super().train(mode)
        if mode:
            for module in self._frozen_modules():
                module.eval()
        return self

    def depthwise_modules(self) -> list[nn.Conv2d]:
        """The convolutions with one group per input channel, from the input up."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d) and is_depthwise(module)]

    def use_fast_depthwise_backward(self) -> None:
        """Compute the gradients of depthwise convolutions in our way (see `depthwise_conv`): much faster on CPUs.

        The forward pass, the parameters and their names stay what they are. Has no effect on other devices.
        """
        use_fast_backward(self)

    def check_map_names(self, names: Collection[str]) -> None:
        """Raise ValueError for a name that `forward_maps` can't give."""
        unknown = [name for name in names if name not in self.feature_maps]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no feature map {unknown}; it has {list(self.feature_maps)}")

    def _frozen_modules(self) -> Iterator[nn.Module]:
        for _, stage in self.stages[: self._frozen_stages]:
            yield stage
        if self._frozen_batch_norm:
            yield from (module for module in self.modules() if isinstance(module, _BatchNorm))


def meta_copy(network: nn.Module) -> nn.Module:
    """A copy without data: a forward pass gives shapes and computes nothing. Holds no second set of weights."""
    without_data: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in network.parameters()
    }
    without_data |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    return copy.deepcopy(network, without_data)
