"""How many multiplications with an addition a layer takes: convolutions and matrix products, nearly all there are."""

from __future__ import annotations

from torch import Tensor

from detpipe.backbone.caffe.convolution import DECONVOLUTIONS
from detpipe.backbone.caffe.inner_product import InnerProduct
from detpipe.inspect.layers import Call


def multiply_adds(call: Call, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> int:
    """Of one pass with these tensors, all images together; 0 of layers without a kernel or matrix.

    A convolution takes, for each number of its output, one for each number of a filter; a transposed one, for each of
    its input. A matrix product likewise.
    """
    weight = call.weight
    if weight is None or not inputs or not outputs:
        return 0
    if isinstance(call.module, DECONVOLUTIONS):
        return inputs[0].numel() * weight[0].numel()
    if isinstance(call.module, InnerProduct) and call.module.transposed:
        return outputs[0].numel() * weight.shape[0]
    return outputs[0].numel() * weight[0].numel()
