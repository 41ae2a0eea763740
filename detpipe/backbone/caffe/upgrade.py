"""Upgrading nets from older Caffe formats: V1 layers, inputs outside of layers, and moved settings.

Caffe does the same when it reads a file (upgrade_proto.cpp). Its first format, V0, is not supported. Fields of
well-known forks of Caffe that have one meaning in Caffe are replaced by Caffe's own.
"""

from __future__ import annotations

from google.protobuf.message import Message

from detpipe.backbone.caffe.caffe_net_pb2 import (
    ConvolutionParameter,
    LayerParameter,
    NetParameter,
    ParamSpec,
    PoolingParameter,
    V1LayerParameter,
)

V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "NONE": "",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
"""The current type name for each V1 type."""

MAX_INPUTS = 100
FIRST_OF_FORKS = 1001
"""The first number of the fields and values that only forks of Caffe have."""
DEPTHWISE = ("DepthwiseConvolution", "ConvolutionDepthwise")
"""Types of forks for a Convolution with one group per channel."""

MOVED = ("scale", "mean_file", "crop_size", "mirror")
"""Settings of data layers that are in transform_param now."""


def upgrade(net: NetParameter, where: str = "net") -> NetParameter:
    """A copy of the net in the newest format: all layers in `layer`, and inputs as Input layers before them.

    Raises ValueError, beginning with `where`, for a net with both formats of layers, if the number of input shapes does
    not match the number of inputs, and for a fork's field that has no meaning in Caffe.
    """
    if net.layer and net.layers:
        raise ValueError(f"{where}: expected layers as `layer` or as `layers`, got both")
    new = NetParameter()
    new.CopyFrom(net)
    for name in ("layers", "input", "input_dim", "input_shape", "layer"):
        new.ClearField(name)
    new.layer.extend(_input_layers(net, where))
    new.layer.extend(net.layer)
    new.layer.extend(_from_v1(layer) for layer in net.layers)
    for layer in new.layer:
        _move_transform(layer)
        _still_statistics(layer)
        try:
            _replace_fork_fields(layer)
        except ValueError as error:
            raise ValueError(f"{where}: layer {layer.name!r}: {error}") from error
    return new


def _input_layers(net: NetParameter, where: str) -> list[LayerParameter]:
    if len(net.input) > MAX_INPUTS:
        raise ValueError(f"{where}: expected at most {MAX_INPUTS} inputs, got {len(net.input)}")
    shapes = [list(shape.dim) for shape in net.input_shape]
    if net.input_dim:
        if shapes:
            raise ValueError(f"{where}: expected input_dim or input_shape, got both")
        shapes = [list(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
        if len(net.input_dim) % 4:
            raise ValueError(f"{where}: expected four input_dim for each input, got {len(net.input_dim)}")
    if shapes and len(shapes) != len(net.input):
        raise ValueError(
            f"{where}: expected a shape for each input, got {len(shapes)} shapes for {len(net.input)} inputs"
        )
    layers = []
    for i, name in enumerate(net.input):
        layer = LayerParameter(name=name, type="Input", top=[name])
        if shapes:
            layer.input_param.shape.add(dim=shapes[i])
        layers.append(layer)
    return layers


def _from_v1(old: V1LayerParameter) -> LayerParameter:
    kind = V1_TYPES[V1LayerParameter.LayerType.Name(old.type)]
    new = LayerParameter(
        name=old.name, type=kind, bottom=old.bottom, top=old.top, loss_weight=old.loss_weight,
        include=old.include, exclude=old.exclude, blobs=old.blobs, param=_param_specs(old),
    )  # fmt: skip
    for field, value in old.ListFields():
        if field.name.endswith("_param") and isinstance(value, Message):
            getattr(new, field.name).CopyFrom(value)
    return new


def _param_specs(old: V1LayerParameter) -> list[ParamSpec]:
    """Names, sharing and multipliers of the blobs: separate lists in V1, one list now."""
    specs = []
    for i in range(max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))):
        spec = ParamSpec()
        if i < len(old.param) and old.param[i]:
            spec.name = old.param[i]
        if i < len(old.blob_share_mode):
            mode = V1LayerParameter.DimCheckMode.Name(old.blob_share_mode[i])
            spec.share_mode = ParamSpec.PERMISSIVE if mode == "PERMISSIVE" else ParamSpec.STRICT
        if i < len(old.blobs_lr):
            spec.lr_mult = old.blobs_lr[i]
        if i < len(old.weight_decay):
            spec.decay_mult = old.weight_decay[i]
        specs.append(spec)
    return specs


def _move_transform(layer: LayerParameter) -> None:
    for name in ("data_param", "image_data_param", "window_data_param"):
        if layer.HasField(name):
            settings = getattr(layer, name)
            for moved in MOVED:
                if settings.HasField(moved):
                    setattr(layer.transform_param, moved, getattr(settings, moved))
                    settings.ClearField(moved)


def _still_statistics(layer: LayerParameter) -> None:
    """Set the multipliers of BatchNorm's statistics to 0. Old files state others, which have no effect in Caffe."""
    if layer.type == "BatchNorm" and len(layer.param) == 3:
        for spec in layer.param:
            spec.lr_mult = spec.decay_mult = 0


def _replace_fork_fields(layer: LayerParameter) -> None:
    """Replace the fields of forks by Caffe's. Raises ValueError for contradictions, and for scale_train: false."""
    layer.ClearField("engine")  # the library that computes a layer
    for _, settings in layer.ListFields():
        if getattr(settings, "engine", 0) >= FIRST_OF_FORKS:
            settings.ClearField("engine")
    if layer.type in DEPTHWISE:
        layer.type = "Convolution"
        if not layer.convolution_param.HasField("group"):
            layer.convolution_param.group = layer.convolution_param.num_output
    if layer.HasField("pooling_param"):
        _replace_ceil_mode(layer.pooling_param)
    if layer.HasField("convolution_param"):
        _replace_holes(layer.convolution_param)
    if layer.HasField("dropout_param"):
        if not layer.dropout_param.scale_train:
            raise ValueError(
                "dropout_param.scale_train: expected true, got false, which Caffe does not have; in a trained net, "
                f"replace the layer by a Power layer with scale {1 - layer.dropout_param.dropout_ratio:g}"
            )
        layer.dropout_param.ClearField("scale_train")


def _replace_ceil_mode(pooling: PoolingParameter) -> None:
    """ceil_mode false is round_mode FLOOR, and true, the default, is CEIL."""
    if pooling.HasField("ceil_mode"):
        mode = PoolingParameter.CEIL if pooling.ceil_mode else PoolingParameter.FLOOR
        if pooling.HasField("round_mode") and pooling.round_mode != mode:
            raise ValueError("pooling_param: expected ceil_mode or round_mode, got both with different meanings")
        pooling.round_mode = mode
        pooling.ClearField("ceil_mode")


def _replace_holes(convolution: ConvolutionParameter) -> None:
    """DeepLab's name of the dilation."""
    sides = ("hole_h", "hole_w")
    if not any(convolution.HasField(name) for name in ("hole", *sides)):
        return
    if convolution.dilation:
        raise ValueError("convolution_param: expected hole or dilation, got both")
    holes = [getattr(convolution, name) or convolution.hole or 1 for name in sides]
    convolution.dilation.extend(holes if any(convolution.HasField(name) for name in sides) else [convolution.hole])
    for name in ("hole", *sides):
        convolution.ClearField(name)
