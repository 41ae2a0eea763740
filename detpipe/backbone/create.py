"""A backbone from its name and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from detpipe.backbone import timm_models, torchvision_models
from detpipe.backbone.backbone import Backbone
from detpipe.backbone.efficientnet_lite0 import EfficientNetLite0
from detpipe.backbone.weights import load_weights

LITE0 = "efficientnet_lite0"
IMAGENET = "imagenet"
NONE = "none"


@dataclass(kw_only=True)
class BackboneConfig:
    """Which network, with which weights, at which input size."""

    name: str = LITE0
    """efficientnet_lite0, torchvision/NAME (torchvision/resnet18) or timm/NAME."""
    weights: str = IMAGENET
    """imagenet, none (random, and said so), or the path of a .pth or .safetensors file."""
    input_size: int | None = None
    """Height and width in pixels of what it sees; null: what it was trained on. Region classifiers take the crops'."""
    download: bool = False
    """Let torchvision or timm fetch their own weights from the network for weights=imagenet."""

    def __post_init__(self) -> None:
        if self.input_size is not None and self.input_size < 1:
            raise ValueError(f"backbone.input_size: wanted at least 1 pixel, or null, got {self.input_size}")
        if not self.weights:
            raise ValueError("backbone.weights: wanted imagenet, none or a path, got an empty one")
        if self.download and self.weights != IMAGENET:
            raise ValueError(f"backbone.download=true goes with weights=imagenet only, got weights={self.weights}")
        if self.name != LITE0 and not self.name.startswith(("torchvision/", "timm/")):
            raise ValueError(
                f"backbone.name: wanted efficientnet_lite0, torchvision/NAME or timm/NAME, got {self.name!r}"
            )


def create_backbone(config: BackboneConfig) -> Backbone:
    """The network with its weights, in evaluation mode; its spec has the configured size.

    With weights=none it is drawn from torch's global generator, which the caller seeds. `classifier` is None unless
    the weights brought one of 1000 classes.

    Raises ImportError where a package is missing, FileNotFoundError or ValueError where the weights are, and
    ValueError for an unknown name; each says what to do.
    """
    backbone = _lite0(config) if config.name == LITE0 else _from_library(config)
    if config.input_size is not None:
        backbone.spec = replace(backbone.spec, size=(config.input_size, config.input_size))
    return backbone.eval()


def _lite0(config: BackboneConfig) -> Backbone:
    backbone = EfficientNetLite0()
    if config.weights == IMAGENET:
        backbone.load_imagenet_weights()
    elif not _load_file(backbone, config.weights):
        backbone.classifier = None
    return backbone


def _from_library(config: BackboneConfig) -> Backbone:
    library, _, name = config.name.partition("/")
    if config.weights == IMAGENET and not config.download:
        raise ValueError(
            f"{config.name}: its ImageNet weights come from the network, and nothing is downloaded unasked; "
            "say download=true, or weights=PATH for a local file, or weights=none for random ones"
        )
    build = torchvision_models.build if library == "torchvision" else timm_models.build
    network = build(name, config.download)
    # Before the network is wrapped: a file has the names that the library gives.
    has_classifier = config.weights == IMAGENET or _load_file(network, config.weights)
    if library == "torchvision":
        backbone: Backbone = torchvision_models.TorchvisionBackbone(name, network)
    else:
        backbone = timm_models.TimmBackbone(network)
    if not has_classifier:
        backbone.classifier = None
    return backbone


def _load_file(network: nn.Module, weights: str) -> bool:
    """Load the file, unless it is `none`; whether it brought the classifier, the last linear layer, too."""
    if weights == NONE:
        return False
    not_loaded = load_weights(network, Path(weights)).not_loaded
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    return bool(linear) and not any(name.startswith(f"{linear[-1]}.") for name in not_loaded)
