"""Upgrading nets from older Caffe formats: V1 layers, inputs outside of layers, and moved settings.

Caffe does the same when it reads a file (upgrade_proto.cpp). Its first format, V0, is not supported.
"""

from __future__ import annotations

from google.protobuf.message import Message

from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter, NetParameter, ParamSpec, V1LayerParameter

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

MOVED = ("scale", "mean_file", "crop_size", "mirror")
"""Settings of data layers that are in transform_param now."""


def upgrade(net: NetParameter, where: str = "net") -> NetParameter:
    """A copy of the net in the newest format: all layers in `layer`, and inputs as Input layers before them.

    Raises ValueError, beginning with `where`, for a net with both formats of layers, and if the number of input shapes
    does not match the number of inputs.
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
    return new


def _input_layers(net: NetParameter, where: str) -> list[LayerParameter]:
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
