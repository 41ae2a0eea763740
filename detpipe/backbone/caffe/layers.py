"""The table of supported layer types and their builders. To add a type, write its builder and add a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from detpipe.backbone.caffe.activations import build_activation, build_dropout, build_prelu
from detpipe.backbone.caffe.batch_norm import build_batch_norm
from detpipe.backbone.caffe.built import Built, Shape
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter
from detpipe.backbone.caffe.convolution import build_convolution
from detpipe.backbone.caffe.inner_product import build_inner_product
from detpipe.backbone.caffe.joining import build_concat, build_eltwise, build_slice, build_split
from detpipe.backbone.caffe.lrn import build_lrn
from detpipe.backbone.caffe.pooling import build_pooling
from detpipe.backbone.caffe.reshaping import build_flatten, build_reshape
from detpipe.backbone.caffe.scale import build_bias, build_scale
from detpipe.backbone.caffe.softmax import build_accuracy, build_softmax, build_softmax_with_loss

Builder = Callable[[LayerParameter, Sequence[Shape]], Built]

BUILDERS: Mapping[str, Builder] = {
    "AbsVal": build_activation,
    "Accuracy": build_accuracy,
    "BatchNorm": build_batch_norm,
    "Bias": build_bias,
    "Concat": build_concat,
    "Convolution": build_convolution,
    "Deconvolution": build_convolution,
    "Dropout": build_dropout,
    "ELU": build_activation,
    "Eltwise": build_eltwise,
    "Flatten": build_flatten,
    "InnerProduct": build_inner_product,
    "LRN": build_lrn,
    "PReLU": build_prelu,
    "Pooling": build_pooling,
    "Power": build_activation,
    "ReLU": build_activation,
    "Reshape": build_reshape,
    "Scale": build_scale,
    "Sigmoid": build_activation,
    "Silence": build_split,
    "Slice": build_slice,
    "Softmax": build_softmax,
    "SoftmaxWithLoss": build_softmax_with_loss,
    "Split": build_split,
    "TanH": build_activation,
}

INPUTS = ("Input", "Data", "ImageData", "MemoryData", "HDF5Data", "WindowData", "DummyData")
"""Input layers without bottoms. Their tops are passed by the caller."""
