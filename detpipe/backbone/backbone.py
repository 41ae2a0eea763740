"""The common interface of all backbones: input spec, pooled features, named feature maps, and stages to freeze.

N: number of images. H, W: height and width of the input. C: channels of a map.
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
    """stride: input pixels per cell of the map. channels: number of channels."""

    stride: int
    channels: int


class Backbone(nn.Module):
    """An image classifier without its last layer.

    A subclass implements `forward`, `forward_maps` and `stages`. `forward` maps images (N, 3, H, W) float, normalised
    by `spec`, to pooled features (N, feature_width). N = 0 gives (0, feature_width).

    spec: the expected input. feature_width: length of a feature vector. feature_maps: the maps that `forward_maps` can
    return, from the input up. classifier: the last layer, from features to 1000 ImageNet logits, or None.
    has_random_weights: whether no weights were loaded (weights=none).
    """

    def __init__(self, spec: InputSpec, feature_width: int, feature_maps: dict[str, FeatureMap]) -> None:
        super().__init__()
        self.spec = spec
        self.feature_width = feature_width
        self.feature_maps = feature_maps
        self.classifier: nn.Module | None = None
        self.has_random_weights = False
        self._frozen_stages = 0
        self._frozen_batch_norm = False

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """Name and module of each stage from the input up. The stem is a stage; the classifier is not."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled features. (N, 3, H, W) float -> (N, feature_width)."""
        raise NotImplementedError

    def forward_maps(self, x: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The named feature maps, in the order of `names`: each about (N, C, H / stride, W / stride).

        No names give {}. Raises ValueError for a name that is not in `feature_maps`.
        """
        raise NotImplementedError

    def multipliers(self) -> dict[str, tuple[float, float]]:
        """Multipliers of learning rate and weight decay by parameter name, as stated in a prototxt; others are 1."""
        return {}

    def load_imagenet_weights(self) -> None:
        """Load the published weights and `classifier`. Raises ValueError if the network has none."""
        raise ValueError(
            f"backbone.weights: {type(self).__name__} has no ImageNet weights of its own; set "
            "backbone.weights=FILE, or backbone.weights=none for random ones"
        )

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """ImageNet logits: (N, 3, H, W) -> (N, 1000). Raises ValueError if there is no classifier."""
        if self.classifier is None:
            raise ValueError(
                f"{type(self).__name__}: expected weights with an ImageNet classifier, got weights without"
            )
        logits: torch.Tensor = self.classifier(self(x))
        return logits

    def freeze(self, stages: int = 0, depthwise: bool = False, batch_norm: bool = True) -> None:
        """Set which parameters are frozen. Everything else is unfrozen.

        stages: number of stages to freeze, from the input up; they have no gradients and stay in evaluation mode.
        depthwise: freeze the kernels of all depthwise convolutions.
        batch_norm: freeze scale, shift and running statistics of all batch norms, also after `train()`.
        Raises ValueError if there are fewer stages.
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
        """Set training mode, except for frozen modules."""
        super().train(mode)
        if mode:
            for module in self._frozen_modules():
                module.eval()
        return self

    def depthwise_modules(self) -> list[nn.Conv2d]:
        """The depthwise convolutions (one group per input channel), from the input up."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d) and is_depthwise(module)]

    def use_fast_depthwise_backward(self) -> None:
        """Use the gradients of `depthwise_conv` for depthwise convolutions, which are much faster on CPUs.

        The forward pass, the parameters and their names do not change. There is no effect on other devices.
        """
        use_fast_backward(self)

    def check_map_names(self, names: Collection[str]) -> None:
        """Raise ValueError for a name that is not in `feature_maps`."""
        unknown = [name for name in names if name not in self.feature_maps]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no feature map {unknown}; it has {list(self.feature_maps)}")

    def _frozen_modules(self) -> Iterator[nn.Module]:
        for _, stage in self.stages[: self._frozen_stages]:
            yield stage
        if self._frozen_batch_norm:
            yield from (module for module in self.modules() if isinstance(module, _BatchNorm))


def meta_copy(network: nn.Module) -> nn.Module:
    """A copy on the meta device: a forward pass computes only shapes, and the copy needs no memory for weights."""
    without_data: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in network.parameters()
    }
    without_data |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    return copy.deepcopy(network, without_data)
