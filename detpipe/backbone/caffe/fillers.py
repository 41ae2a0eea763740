"""Initialisation of parameters (Caffe's fillers) from an explicit generator.

A blob of shape (s0, s1, ...) with c elements has fan-in c / s0 and fan-out c / s1. variance_norm sets n to fan-in (the
default), fan-out or their average.
"""

from __future__ import annotations

import math

import torch

from detpipe.backbone.caffe.caffe_net_pb2 import FillerParameter

FILLERS = ("constant", "gaussian", "uniform", "xavier", "msra", "bilinear", "positive_unitball")


def fill(tensor: torch.Tensor, filler: FillerParameter, generator: torch.Generator | None) -> None:
    """Fill a float tensor in place. An empty tensor is not changed.

    constant: `value`. uniform: in [min, max). gaussian: mean and std, for `sparse` see `_gaussian`. xavier: uniform
    within +-sqrt(3 / n) (Glorot & Bengio 2010, section 4.2.1, with one fan). msra: normal with variance 2 / n (He et
    al. 2015, section 2.2). bilinear: the kernel with which a deconvolution interpolates (Long et al. 2015, section
    3.3). positive_unitball: uniform in [0, 1), then scaled so that each output's weights sum to 1.

    generator: None is torch's global one. Raises ValueError for an unknown filler, for settings of infinity or NaN, and
    for a shape that the filler does not support.
    """
    numbers = (filler.value, filler.min, filler.max, filler.mean, filler.std)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"filler: expected finite value, min, max, mean and std, got {numbers}")
    if tensor.numel() == 0:
        return
    with torch.no_grad():
        match filler.type:
            case "constant":
                tensor.fill_(filler.value)
            case "uniform":
                if not 0 <= filler.max - filler.min <= torch.finfo(torch.float32).max:
                    raise ValueError(
                        f"uniform filler: expected min <= max with a finite difference, got {filler.min}, {filler.max}"
                    )
                tensor.uniform_(filler.min, filler.max, generator=generator)
            case "gaussian":
                _gaussian(tensor, filler, generator)
            case "xavier":
                bound = math.sqrt(3 / fan(tensor, filler))
                tensor.uniform_(-bound, bound, generator=generator)
            case "msra":
                tensor.normal_(0, math.sqrt(2 / fan(tensor, filler)), generator=generator)
            case "bilinear":
                _bilinear(tensor)
            case "positive_unitball":
                tensor.uniform_(0, 1, generator=generator)
                rows = tensor.view(tensor.shape[0] if tensor.ndim else 1, -1)
                rows /= rows.sum(1, keepdim=True)
            case other:
                raise ValueError(f"filler: expected one of {', '.join(FILLERS)}, got {other!r}")


def fan(tensor: torch.Tensor, filler: FillerParameter) -> float:
    """The number n in the filler's variance: fan-in, fan-out or their average."""
    count = tensor.numel()
    fan_in = count / tensor.shape[0] if tensor.ndim else count
    fan_out = count / tensor.shape[1] if tensor.ndim > 1 else count
    if filler.variance_norm == FillerParameter.FAN_OUT:
        return fan_out
    return (fan_in + fan_out) / 2 if filler.variance_norm == FillerParameter.AVERAGE else fan_in


def _gaussian(tensor: torch.Tensor, filler: FillerParameter, generator: torch.Generator | None) -> None:
    """sparse >= 0: keep each weight with probability sparse / s0, so an input reaches about `sparse` outputs."""
    if filler.std < 0:
        raise ValueError(f"gaussian filler: expected std of 0 or more, got {filler.std}")
    tensor.normal_(filler.mean, filler.std, generator=generator)
    if filler.sparse >= 0:
        outputs = tensor.shape[0] if tensor.ndim else 1
        if filler.sparse > outputs:
            raise ValueError(f"gaussian filler: expected sparse of at most {outputs} outputs, got {filler.sparse}")
        tensor *= torch.empty_like(tensor).bernoulli_(filler.sparse / outputs, generator=generator)


def _bilinear(tensor: torch.Tensor) -> None:
    if tensor.ndim != 4 or tensor.shape[2] != tensor.shape[3]:
        raise ValueError(f"bilinear filler: expected four axes and a square kernel, got {tuple(tensor.shape)}")
    width = tensor.shape[3]
    factor = math.ceil(width / 2)
    centre = (width - 1) / (2 * factor)
    weights = 1 - (torch.arange(width, dtype=torch.float32) / factor - centre).abs()
    tensor.copy_(weights[:, None] * weights)
