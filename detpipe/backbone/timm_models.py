"""Image classifiers of timm (extra [timm]) as backbones."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from detpipe.backbone.backbone import Backbone, FeatureMap, meta_copy
from detpipe.backbone.input_spec import InputSpec
from detpipe.resize import Interpolation

IMAGENET_CLASSES = 1000


class TimmBackbone(Backbone):
    """A network of timm without its classifier. Maps `stride4` .. are its last intermediate maps of each stride.

    Stages are timm's coarse groups of layers, which it uses for layer-wise learning rates.
    """

    def __init__(self, network: nn.Module) -> None:
        """network: from `build(name)`, perhaps with other weights. Its classifier is removed."""
        from timm.data.config import resolve_model_data_config
        from timm.models import group_modules

        # timm's networks share methods, but no common class declares them.
        net: Any = network
        spec = _input_spec(resolve_model_data_config(network))
        feature_width, maps = _look(meta_copy(network).eval(), spec.size)
        super().__init__(spec, feature_width, {f"stride{stride}": found for stride, (_, found) in maps.items()})
        self._indices = {f"stride{stride}": index for stride, (index, _) in maps.items()}
        # CLIP's last layer is a projection, and networks without a classifier have an identity.
        self.classifier = net.get_classifier() if net.num_classes == IMAGENET_CLASSES else None
        net.reset_classifier(0)
        groups = group_modules(network, net.group_matcher(coarse=True))
        self._stage_paths: list[list[str]] = [groups[key] for key in sorted(groups)]
        self.network = network

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """stage0 (the stem), stage1 .. up to the last layers before the classifier."""
        return [
            (f"stage{i}", nn.ModuleList([self.network.get_submodule(path) for path in paths]))
            for i, paths in enumerate(self._stage_paths)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        net: Any = self.network
        features: torch.Tensor = net.forward_head(net.forward_features(x), pre_logits=True)
        return features

    def forward_maps(self, x: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """See `Backbone.forward_maps`. Layers above the last named map do not run."""
        self.check_map_names(names)
        if not names:
            return {}
        net: Any = self.network
        wanted = sorted({self._indices[name] for name in names})
        outputs = net.forward_intermediates(
            x, indices=wanted, output_fmt="NCHW", stop_early=True, intermediates_only=True
        )
        return {name: outputs[wanted.index(self._indices[name])] for name in names}


def build(name: str, download: bool = False) -> nn.Module:
    """Create timm's network, with random weights, or with weights that timm downloads.

    Raises as `check_name`.
    """
    check_name(name)
    import timm

    network: nn.Module = timm.create_model(name, pretrained=download)
    return network


def check_name(name: str) -> None:
    """Raise ImportError, which says what to install, if timm is missing, and ValueError for an unknown name."""
    if find_spec("timm") is None:
        raise ImportError(f"timm/{name}: timm is not installed; install it with pip install 'detpipe[timm]'")
    import timm

    if not timm.is_model(name):
        # "resnet50.a1_in1k" names the weights after the network.
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3) or ["resnet50"]
        raise ValueError(
            f"backbone.name: expected a network of timm, got {name!r}; "
            f"did you mean {' or '.join(f'timm/{one}' for one in close)}?"
        )


def _input_spec(config: dict[str, Any]) -> InputSpec:
    _, height, width = config["input_size"]
    first, second, third = (255 * value for value in config["mean"])
    std_first, std_second, std_third = (255 * value for value in config["std"])
    return InputSpec(
        size=(height, width),
        mean=(first, second, third),
        std=(std_first, std_second, std_third),
        interpolation=Interpolation(config["interpolation"]),
    )


def _look(network: Any, size: tuple[int, int]) -> tuple[int, dict[int, tuple[int, FeatureMap]]]:
    """The feature width, and for each stride the index and size of the last intermediate map.

    `network` is on the meta device, so this is cheap.
    """
    x = torch.empty(1, 3, *size, device="meta")
    with torch.no_grad():
        features = network.forward_head(network.forward_features(x), pre_logits=True)
        if not hasattr(network, "forward_intermediates"):
            return int(features.shape[1]), {}
        outputs = network.forward_intermediates(x, output_fmt="NCHW", intermediates_only=True)
    maps: dict[int, tuple[int, FeatureMap]] = {}
    for index, output in enumerate(outputs):
        stride = _stride(size[0], output.shape[2])
        if stride > 1:
            maps[stride] = (index, FeatureMap(stride, output.shape[1]))
    return int(features.shape[1]), maps


def _stride(input_size: int, map_size: int) -> int:
    """Input pixels per cell: the exact ratio (14 for some ViTs), or the nearest power of 2 if borders are cut off."""
    exact, rest = divmod(input_size, map_size)
    return exact if rest == 0 else int(2 ** round(math.log2(input_size / map_size)))
