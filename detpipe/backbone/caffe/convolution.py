"""Caffe's Convolution and Deconvolution as torch modules, whose weights have the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from detpipe.backbone.caffe.built import MAX_SIZE, Built, Shape, axis_of, positive, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import ConvolutionParameter, LayerParameter

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
DECONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def build_convolution(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build (N, C, spatial...) -> (N, num_output, spatial...) with 1 to 3 spatial axes.

    For input size i, kernel k, stride s, padding p and dilation d, the output size is
    floor((i + 2p - d(k-1) - 1) / s) + 1, and for a Deconvolution s(i-1) + d(k-1) + 1 - 2p.
    """
    want_bottoms(bottoms, 1)
    want_tops(layer)
    settings = layer.convolution_param
    ndim = len(bottoms[0])
    if not 3 <= ndim <= 5 or axis_of(settings.axis, ndim) != 1:
        raise ValueError(f"expected (N, C, 1 to 3 spatial axes) and axis 1, got {bottoms[0]} and axis {settings.axis}")
    channels, outputs = positive(bottoms[0][1], "channels"), positive(settings.num_output, "num_output")
    group = positive(settings.group, "group")
    if channels % group or outputs % group:
        raise ValueError(f"expected channels and num_output in {group} groups, got {channels} and {outputs}")
    kind: Callable[..., nn.Module] = (DECONVOLUTIONS if layer.type == "Deconvolution" else CONVOLUTIONS)[ndim - 3]
    module = kind(
        channels,
        outputs,
        kernel_size=spatial(settings, "kernel", ndim - 2, None, 1),
        stride=spatial(settings, "stride", ndim - 2, 1, 1),
        padding=spatial(settings, "pad", ndim - 2, 0, 0),
        dilation=spatial(settings, "dilation", ndim - 2, 1, 1),
        groups=group,
        bias=settings.bias_term,
    )
    return Built(module, [settings.weight_filler, settings.bias_filler][: 1 + settings.bias_term])


def spatial(settings: ConvolutionParameter, name: str, axes: int, default: int | None, lowest: int) -> Shape:
    """A setting for each spatial axis, from kernel_h and kernel_w, or from one or one per axis kernel_size."""
    field = "kernel_size" if name == "kernel" else name
    values = list(getattr(settings, field))
    sides = [f"{name}_h", f"{name}_w"]
    given = [side for side in sides if name != "dilation" and settings.HasField(side)]
    if given:
        if values or axes != 2 or (len(given) < 2 and default is None):
            raise ValueError(f"expected {field}, or both {sides[0]} and {sides[1]} in two dimensions, got a mixture")
        values = [getattr(settings, side) if side in given else default for side in sides]
    if not values and default is not None:
        values = [default]
    if len(values) not in (1, axes):
        raise ValueError(f"expected {field} once or {axes} times, got it {len(values)} times")
    if any(not lowest <= value <= MAX_SIZE for value in values):
        raise ValueError(f"expected {field} of {lowest} or more, got {values}")
    return tuple(values * axes if len(values) == 1 else values)
