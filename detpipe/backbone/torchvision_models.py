"""Image classifiers of torchvision as backbones. Feature maps and stages are found by a forward pass.

The trunk is the sequence of modules that the input passes before the pooling: the children of the network and of
`nn.Sequential`s and `nn.ModuleList`s inside it, down to blocks.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn

from detpipe.backbone.backbone import Backbone, FeatureMap, meta_copy
from detpipe.backbone.input_spec import InputSpec
from detpipe.resize import Interpolation


@dataclass(frozen=True)
class TrunkModule:
    """A module of the trunk. path: its name in the network. shape: of its output for one image."""

    path: str
    shape: tuple[int, ...]

    @property
    def is_map(self) -> bool:
        """Whether the output is a map (1, C, size, size), unlike the tokens of a transformer."""
        return len(self.shape) == 4 and self.shape[2] == self.shape[3]

    def stride(self, input_size: int) -> int:
        """Input pixels per cell, rounded to a power of 2, because convolutions without padding cut off borders."""
        return int(2 ** round(math.log2(input_size / self.shape[2])))


class TorchvisionBackbone(Backbone):
    """A network of torchvision without its last linear layer. Maps `stride4` .. are the last outputs of each stride.

    Stages are named by stride too, then `top` for layers after the pooling (VGG's hidden layers). A network on tokens
    (ViT, Swin) has no feature maps and one stage.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        """network: from `build(name)`, perhaps with other weights. Its classifier is removed."""
        spec = input_spec(name)
        probe = meta_copy(network)
        _take_classifier(probe)
        trunk, feature_width = _look(probe, spec.size[0])
        if not all(module.is_map for module in trunk):
            trunk = []
        by_stride: dict[int, list[TrunkModule]] = {}
        for module in trunk:
            by_stride.setdefault(module.stride(spec.size[0]), []).append(module)
        last = {f"stride{stride}": (stride, modules[-1]) for stride, modules in by_stride.items() if stride > 1}
        maps = {name: FeatureMap(stride, module.shape[1]) for name, (stride, module) in last.items()}
        super().__init__(spec, feature_width, maps)
        self._map_paths = {name: module.path for name, (_, module) in last.items()}
        self._stage_paths = {f"stride{s}": [module.path for module in modules] for s, modules in by_stride.items()}
        self.classifier = _take_classifier(network)
        self.network = network

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """stride1 or stride2 .. stride32, then `top` if there are layers with weights after the pooling."""
        if not self._stage_paths:
            return [("network", self.network)]
        stages: list[tuple[str, nn.Module]] = []
        for name, paths in self._stage_paths.items():
            stage = nn.ModuleList([self.network.get_submodule(path) for path in paths])
            if any(True for _ in stage.parameters()):
                stages.append((name, stage))
        below = {id(parameter) for _, stage in stages for parameter in stage.parameters()}
        top = [
            module
            for module in self.network.modules()
            if any(id(parameter) not in below for parameter in module.parameters(recurse=False))
        ]
        if top:
            stages.append(("top", nn.ModuleList(top)))
        return stages

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network(x)
        return features

    def forward_maps(self, x: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """See `Backbone.forward_maps`. The whole network runs, whatever the names."""
        self.check_map_names(names)
        if not names:
            return {}
        outputs: dict[str, torch.Tensor] = {}
        hooks = [
            self.network.get_submodule(self._map_paths[name]).register_forward_hook(_keep_output(outputs, name))
            for name in names
        ]
        try:
            self.network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: outputs[name] for name in names}


def build(name: str, download: bool = False) -> nn.Module:
    """Create torchvision's network with 1000 classes, with random weights, or with weights that it downloads.

    Raises ValueError for an unknown name.
    """
    check_name(name)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Their ImageNet weights need another input scale, which transform_input applies. The auxiliary classifiers are
        # only for training from scratch.
        options = {"transform_input": True, "aux_logits": False}
        if not download:
            options["init_weights"] = True
    weights = torchvision.models.get_model_weights(name).DEFAULT if download else None
    network: nn.Module = torchvision.models.get_model(name, weights=weights, **options)
    return network


def input_spec(name: str) -> InputSpec:
    """The input that torchvision's weights of a network were trained with. Raises ValueError for an unknown name."""
    check_name(name)
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    size = preset.crop_size[0]
    first, second, third = (255 * value for value in preset.mean)
    std_first, std_second, std_third = (255 * value for value in preset.std)
    return InputSpec(
        size=(size, size),
        mean=(first, second, third),
        std=(std_first, std_second, std_third),
        interpolation=Interpolation(preset.interpolation.value),
    )


def check_name(name: str) -> None:
    """Raise ValueError, with names that may be meant, unless torchvision has this image classifier."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or ["resnet50"]
        raise ValueError(
            f"backbone.name: expected an image classifier of torchvision, got {name!r}; "
            f"did you mean {' or '.join(f'torchvision/{one}' for one in close)}?"
        )


def _take_classifier(network: nn.Module) -> nn.Module | None:
    """Replace the last linear layer by an identity, and return the layer.

    SqueezeNet classifies each cell of its last map and pools afterwards. Its features are that map, pooled, and None is
    returned.
    """
    if isinstance(network, torchvision.models.SqueezeNet):
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return None
    path, classifier = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    network.set_submodule(path, nn.Identity())
    return classifier


def _look(network: nn.Module, size: int) -> tuple[list[TrunkModule], int]:
    """The trunk in the order of execution, and the feature width. `network` is on the meta device, so this is cheap."""
    trunk: list[TrunkModule] = []
    pooled = False

    def note(path: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def hook(module: nn.Module, _: object, output: torch.Tensor) -> None:
            nonlocal pooled
            pooled = pooled or isinstance(module, nn.AdaptiveAvgPool2d) or output.ndim == 2
            if not pooled:
                trunk.append(TrunkModule(path, tuple(output.shape)))

        return hook

    for path, module in _trunk_candidates(network):
        module.register_forward_hook(note(path))
    with torch.no_grad():
        features = network.eval()(torch.empty(1, 3, size, size, device="meta"))
    return trunk, int(features.shape[1])


def _trunk_candidates(parent: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    found = []
    for name, child in parent.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            found += _trunk_candidates(child, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", child))
    return found


def _keep_output(outputs: dict[str, torch.Tensor], name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
    def hook(_: nn.Module, __: object, output: torch.Tensor) -> None:
        outputs[name] = output

    return hook
