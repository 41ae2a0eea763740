"""Any Caffe classifier as a `Backbone`: the layers below its last layer with weights, and its blobs as feature maps."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detpipe.backbone.backbone import Backbone, FeatureMap
from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter
from detpipe.backbone.caffe.caffemodel import read_caffemodel
from detpipe.backbone.caffe.convolution import CONVOLUTIONS
from detpipe.backbone.caffe.inner_product import InnerProduct
from detpipe.backbone.caffe.inputs import input_shapes
from detpipe.backbone.caffe.layers import INPUTS
from detpipe.backbone.caffe.load import build_net, load_blobs
from detpipe.backbone.caffe.net import Net, Step
from detpipe.backbone.caffe.net_state import select_layers
from detpipe.backbone.caffe.pooling import GlobalPooling, Pooling
from detpipe.backbone.caffe.presets import find_prototxt
from detpipe.backbone.caffe.prototxt import read_prototxt
from detpipe.backbone.caffe.upgrade import upgrade
from detpipe.backbone.input_spec import ChannelOrder, InputSpec, Triple
from detpipe.backbone.weights import load_weights
from detpipe.storage.mean_file import read_mean

WITH_WEIGHTS = (InnerProduct, *CONVOLUTIONS)
GREY_OF_BGR = (0.114, 0.587, 0.299)
"""Weights of blue, green and red in the luma of ITU-R BT.601, with which OpenCV (and so Caffe) converts to grey."""


class CaffeBackbone(Backbone):
    """The layers below the last InnerProduct or Convolution. The input is (BGR - mean) * scale.

    Features are the input of that last layer. An InnerProduct becomes `classifier`. Before a Convolution (as in
    SqueezeNet) the features are averaged over the map, and there is no classifier. A net with one input channel gets
    the image in grey.

    Feature maps: `stride4` .., the last blob of each stride, as in other backbones, and each map by its blob name
    (conv5_3), after the last layer that writes it. Stages are named by stride, then `top`.
    """

    def __init__(self, net: Net, mean: Sequence[float], scale: float) -> None:
        """net: for the phase TEST; layers above the features are removed from it. mean: of B, G, R, or one for all."""
        (name, shape), *_ = net.inputs.items()
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise ValueError(f"expected a net with an image input (N, 1 or 3, H, W), got {name!r} of shape {shape}")
        last = _last_with_weights(net)
        head, blob = net.layers[net.steps[last].module], net.steps[last].bottoms[0]
        net.keep_only([blob], end=last)
        strides = _strides(net)
        maps = {b: FeatureMap(stride, net.shapes[b][1]) for b, stride in strides.items() if b not in net.inputs}
        by_stride = {f"stride{found.stride}": b for b, found in maps.items() if found.stride > 1}
        width = _feature_width(head, net.shapes[blob])
        super().__init__(
            InputSpec((shape[2], shape[3]), triple(mean), (1 / scale, 1 / scale, 1 / scale), ChannelOrder.BGR),
            width,
            {**maps, **{stride: maps[b] for stride, b in by_stride.items()}},
        )
        self.feature_blob, self.is_grey, self._is_flat = blob, shape[1] == 1, isinstance(head, InnerProduct)
        self._map_blobs = {**{b: b for b in maps}, **by_stride}
        self._stage_names = {
            step.module: f"stride{strides[step.tops[0]]}" for step in net.steps if step.tops[0] in strides
        }
        self.classifier = head if isinstance(head, InnerProduct) else None
        self.network = net

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """stride1 or stride2 .., then `top` for layers whose output is not a map. Each stage has weights."""
        stages: dict[str, list[nn.Module]] = {}
        for name, module in self.network.layers.items():
            if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
                stages.setdefault(self._stage_names.get(name, "top"), []).append(module)
        return [(name, nn.ModuleList(modules)) for name, modules in stages.items()]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.network.named_blobs([self.feature_blob], self._seen(x))[self.feature_blob]
        return features.flatten(1) if self._is_flat else features.mean((2, 3))

    def forward_maps(self, x: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """See `Backbone.forward_maps`. Layers above the last named map do not run."""
        self.check_map_names(names)
        if not names:
            return {}
        blobs = self.network.named_blobs({self._map_blobs[name] for name in names}, self._seen(x))
        return {name: blobs[self._map_blobs[name]] for name in names}

    def multipliers(self) -> dict[str, tuple[float, float]]:
        """lr_mult and decay_mult of each parameter in the prototxt."""
        return {f"network.{name}": factors for name, factors in self.network.multipliers().items()}

    def _seen(self, x: torch.Tensor) -> torch.Tensor:
        """The net's input: the three channels, or grey. For grey, mean and scale are the same in all channels."""
        return grey(x) if self.is_grey else x


def grey(x: torch.Tensor) -> torch.Tensor:
    """Grey images: (N, 3, H, W) BGR -> (N, 1, H, W). Three equal channels give exactly this channel."""
    blue, green, red = x.unbind(1)
    of_blue, _, of_red = GREY_OF_BGR
    # A weighted sum would have a rounding error for equal channels.
    return torch.lerp(green, blue, of_blue).add_(red - green, alpha=of_red).unsqueeze(1)


def build(
    prototxt: str, weights: Path | None, mean: Sequence[float], scale: float, size: int | None, *, log: bool = True
) -> CaffeBackbone:
    """Build the net of a prototxt (or preset) for the phase TEST and images of size x size; None: the prototxt's size.

    Without weights it is initialised by its fillers from torch's global generator. There is no classifier without
    weights, or if the file has none for that layer. Raises FileNotFoundError; ValueError as `load_caffe`.
    """
    path = find_prototxt(prototxt)
    definition = read_definition(path)
    shape = input_shape(definition, size, str(path))
    net = build_net(definition, input_shape=shape, generator=torch.default_generator, where=str(path))
    head = net.steps[_last_with_weights(net)]
    has_head = weights is not None and _load(net, weights, head, log)
    backbone = CaffeBackbone(net, mean, scale)
    if not has_head:
        backbone.classifier = None
    return backbone


def preprocessing(
    prototxt: str, mean: Sequence[float], mean_file: str | None, scale: float | None
) -> tuple[list[float], float]:
    """Mean and scale of the input: the given ones, else those in the prototxt's transform_param.

    Raises ValueError if the mean is in neither, because with a wrong mean a net silently works badly.
    """
    path = find_prototxt(prototxt)
    stated = next(
        (layer.transform_param for layer in read_definition(path).layer if layer.HasField("transform_param")), None
    )
    if scale is None:
        scale = stated.scale if stated is not None else 1.0
    if mean_file is not None:
        return list(channel_means(Path(mean_file))), scale
    if mean:
        return list(mean), scale
    if stated is None or (stated.mean_file and not stated.mean_value):
        named = f"only the file name {stated.mean_file}" if stated is not None else "none"
        raise ValueError(
            f"{path}: expected mean values, got {named}; set backbone.mean=[104,117,123] (blue, green, red), "
            "backbone.mean_file=FILE, or backbone.mean=[0] for no mean"
        )
    return list(stated.mean_value) or [0.0], scale


PLAIN_SUFFIXES = (".pth", ".pt", ".safetensors")
"""Suffixes of PyTorch weight files."""


def _load(net: Net, weights: Path, head: Step, log: bool) -> bool:
    """Load a .caffemodel, .pth or .safetensors file. Returns whether it has weights for the last layer."""
    if weights.suffix in PLAIN_SUFFIXES:
        not_loaded = load_weights(net, weights, log=log).not_loaded
        return not any(name.startswith(f"layers.{head.module}.") for name in not_loaded)
    return head.layer.name not in load_blobs(net, read_caffemodel(weights), str(weights), log=log)


def read_definition(path: Path, *, train: bool = False) -> NetParameter:
    """Read the layers of a prototxt for a phase, upgraded to Caffe's newest format. Raises as `load_caffe`."""
    return select_layers(upgrade(read_prototxt(path), str(path)), train=train)


def input_shape(definition: NetParameter, size: int | None, where: str) -> tuple[int, ...] | None:
    """(1, C, size, size) with C from the prototxt, or 3 if it does not say. None for size None or without an input."""
    layer = next((layer for layer in definition.layer if layer.type in INPUTS), None)
    if size is None or layer is None:
        return None
    try:
        stated = input_shapes(layer, None)[0]
    except ValueError:
        return (1, 3, size, size)
    if len(stated) != 4:
        raise ValueError(f"{where}: expected a net with an image input (N, C, H, W), got {stated}")
    return (1, stated[1], size, size)


def _last_with_weights(net: Net) -> int:
    """The index of the last InnerProduct or Convolution. Its bottom is the net's features."""
    indices = [i for i, s in enumerate(net.steps) if isinstance(net.layers[s.module], WITH_WEIGHTS)]
    if len(indices) < 2:
        raise ValueError(f"expected a net with at least two InnerProduct or Convolution layers, got {len(indices)}")
    return indices[-1]


def _strides(net: Net) -> dict[str, int]:
    """The stride of each blob that is a map, by name, from the input up."""
    strides = dict.fromkeys(net.inputs, 1)
    for step in net.steps:
        module = net.layers[step.module]
        below = [strides[bottom] for bottom in step.bottoms if bottom in strides]
        if not below or isinstance(module, InnerProduct | GlobalPooling) or _is_global(module, net, step):
            continue
        own = module.stride[0] if isinstance(module, (Pooling, *CONVOLUTIONS)) else 1
        strides.update({top: max(below) * own for top in step.tops if len(net.shapes[top]) == 4})
    return strides


def _is_global(module: nn.Module, net: Net, step: Step) -> bool:
    """Whether the kernel covers the whole map, as in GoogLeNet's pool5/7x7_s1: then the output is not a map."""
    return isinstance(module, Pooling) and module.stride == (1, 1) and module.kernel == net.shapes[step.bottoms[0]][2:]


def _feature_width(head: nn.Module, shape: Sequence[int]) -> int:
    return math.prod(shape[1:]) if isinstance(head, InnerProduct) else shape[1]


def triple(mean: Sequence[float]) -> Triple:
    """One number per channel, from three numbers or one number for all."""
    first, second, third = mean if len(mean) == 3 else (*mean, *mean, *mean)
    return float(first), float(second), float(third)


def channel_means(path: Path) -> tuple[float, ...]:
    """Read the mean of each channel, 3 or 1, in the order of the file (Caffe: BGR).

    A mean image is averaged over its pixels, so that it fits any input size. Raises as `read_mean`.
    """
    return tuple(float(value) for value in read_mean(path).mean((1, 2), dtype=np.float64))
