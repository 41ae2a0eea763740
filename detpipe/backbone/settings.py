"""The settings of a backbone: which network, with which weights, at which input size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LITE0 = "efficientnet_lite0"
CAFFE = "caffe"
IMAGENET = "imagenet"
NONE = "none"

NETWORKS: Mapping[str, str] = {
    LITE0: "detpipe.backbone.efficientnet_lite0:EfficientNetLite0",
}
"""The networks of this package: `backbone.name` -> "module:Class" of a Backbone. A new one is one line here."""


@dataclass(kw_only=True)
class BackboneConfig:
    """Which network, with which weights, at which input size."""

    name: str = LITE0
    """efficientnet_lite0, torchvision/NAME (torchvision/resnet18), timm/NAME or caffe."""
    weights: str = IMAGENET
    """imagenet, none (random, and said so), or the path of a .pth, .safetensors or (caffe) .caffemodel file."""
    input_size: int | None = None
    """Height and width in pixels of what it sees; null: what it was trained on. Region classifiers take the crops'."""
    download: bool = False
    """Let torchvision or timm fetch their own weights from the network for weights=imagenet."""
    prototxt: str | None = None
    """caffe: the file of the net, or lenet, caffenet, alexnet, googlenet or vgg16."""
    mean: list[float] = field(default_factory=list)
    """caffe: what is subtracted from blue, green and red, or from all; empty: what the prototxt says."""
    mean_file: str | None = None
    """caffe: a .npy or .binaryproto of the mean, in place of `mean`."""
    scale: float | None = None
    """caffe: by what the difference is multiplied; null: what the prototxt says."""

    def __post_init__(self) -> None:
        if self.input_size is not None and self.input_size < 1:
            raise ValueError(f"backbone.input_size: expected at least 1 pixel, or null, got {self.input_size}")
        if not self.weights:
            raise ValueError("backbone.weights: expected imagenet, none or a path, got an empty one")
        if self.download and self.weights != IMAGENET:
            raise ValueError(f"backbone.download=true goes with weights=imagenet only, got weights={self.weights}")
        if self.name not in (*NETWORKS, CAFFE) and not self.name.startswith(("torchvision/", "timm/")):
            own = ", ".join(NETWORKS)
            raise ValueError(f"backbone.name: expected {own}, torchvision/NAME, timm/NAME or caffe, got {self.name!r}")
        self._check_caffe()

    def _check_caffe(self) -> None:
        if self.name != CAFFE:
            if self.prototxt is not None or self.mean or self.mean_file is not None or self.scale is not None:
                raise ValueError(f"backbone: prototxt, mean, mean_file and scale go with name=caffe, got {self.name}")
            return
        if not self.prototxt:
            raise ValueError("backbone.prototxt: name=caffe wants the file of the net, or a preset's name, got none")
        if self.weights == IMAGENET:
            raise ValueError(
                "backbone.weights: name=caffe has no ImageNet weights of its own; say weights=FILE.caffemodel, or none"
            )
        if len(self.mean) not in (0, 1, 3) or (self.mean and self.mean_file is not None):
            raise ValueError(f"backbone.mean: expected 1 or 3 numbers, or mean_file, got {list(self.mean)}")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"backbone.scale: expected a number above 0, got {self.scale}")
