"""Settings of the backbone: network, weights and input size."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from detpipe.plugins import PluginTable

LITE0 = "efficientnet_lite0"
CAFFE = "caffe"
IMAGENET = "imagenet"
NONE = "none"

_ROWS = {
    LITE0: "detpipe.backbone.efficientnet_lite:EfficientNetLite0",
    "efficientnet_lite1": "detpipe.backbone.efficientnet_lite:EfficientNetLite1",
    "efficientnet_lite2": "detpipe.backbone.efficientnet_lite:EfficientNetLite2",
}
NETWORKS = PluginTable("backbone.name", "detpipe.backbones", "detpipe.backbone.backbone:Backbone", _ROWS)
"""The networks of this package and plug-ins: `backbone.name` -> "module:Class" of a Backbone. A new network needs one
row here, or is a plug-in (docs/plugins.md)."""


@dataclass(kw_only=True)
class BackboneConfig:
    """Network, weights and input size of the backbone."""

    name: str = LITE0
    """The network: efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, torchvision/NAME (for example
    torchvision/resnet18), timm/NAME, caffe, or a plug-in's word or package.module:Class."""
    weights: str = IMAGENET
    """Initial weights: imagenet, none (random), or the path of a .pth, .safetensors or (caffe) .caffemodel file."""
    input_size: int | None = None
    """Input size (height and width in pixels) for whole-image classifiers; null: the size of the pretraining. Detectors
    use `crops.size`."""
    download: bool = False
    """Allow torchvision or timm to download their weights for weights=imagenet."""
    prototxt: str | None = None
    """caffe: the prototxt file of the net, or lenet, caffenet, alexnet, googlenet or vgg16."""
    mean: list[float] = field(default_factory=list)
    """caffe: the mean of blue, green and red, or one for all, which is subtracted; empty: the prototxt's mean."""
    mean_file: str | None = None
    """caffe: a .npy or .binaryproto file of the mean, instead of `mean`."""
    scale: float | None = None
    """caffe: factor of the input after the mean is subtracted; null: the prototxt's scale."""

    def __post_init__(self) -> None:
        if self.input_size is not None and self.input_size < 1:
            raise ValueError(f"backbone.input_size: expected at least 1 pixel, or null, got {self.input_size}")
        if not self.weights:
            raise ValueError("backbone.weights: expected imagenet, none or a path, got an empty text")
        if self.download and self.weights != IMAGENET:
            raise ValueError(f"backbone.download=true needs backbone.weights=imagenet, got {self.weights}")
        if self.name in NETWORKS:
            self.name = NETWORKS.stored(self.name)
        elif self.name != CAFFE and not self.name.startswith(("torchvision/", "timm/")):
            own = ", ".join(NETWORKS)
            raise ValueError(
                f"backbone.name: expected {own}, torchvision/NAME, timm/NAME or caffe, got {self.name!r}; "
                f"did you mean {_near_name(self.name)}?"
            )
        self._check_caffe()

    def _check_caffe(self) -> None:
        if self.name != CAFFE:
            if self.prototxt is not None or self.mean or self.mean_file is not None or self.scale is not None:
                raise ValueError(
                    f"backbone: prototxt, mean, mean_file and scale need backbone.name=caffe, got {self.name}"
                )
            return
        if not self.prototxt:
            raise ValueError("backbone.prototxt: expected a file or a preset's name for backbone.name=caffe, got none")
        if self.weights == IMAGENET:
            raise ValueError(
                "backbone.weights: backbone.name=caffe has no ImageNet weights of its own; set "
                "backbone.weights=FILE.caffemodel, or backbone.weights=none"
            )
        if len(self.mean) not in (0, 1, 3) or (self.mean and self.mean_file is not None):
            raise ValueError(f"backbone.mean: expected 1 or 3 numbers, or backbone.mean_file, got {list(self.mean)}")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"backbone.scale: expected a number above 0, got {self.scale}")


def _near_name(name: str) -> str:
    """A name that may be meant: one of this package, or the name in a library."""
    library, separator, rest = name.partition("/")
    if separator:
        near = difflib.get_close_matches(library.lower(), ["torchvision", "timm"], n=1, cutoff=0)
        return f"{near[0]}/{rest}"
    near = difflib.get_close_matches(name.lower(), [*NETWORKS, CAFFE], n=1, cutoff=0.7)
    return near[0] if near else f"torchvision/{name} or timm/{name}"
