"""Static INT8 quantisation of the convolutions of a part, calibrated on images (onnxruntime's quantiser, QDQ format).

Weights are int8 with a scale per channel, activations uint8 with a scale per tensor. Box decoding, region layers, NMS
and voting stay in float32.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

QUANTISED = ("Conv", "Clip", "Relu")
"""Activations are quantised with the convolution before them."""


def quantised(part: onnx.ModelProto, samples: Iterable[npt.NDArray[np.uint8]]) -> onnx.ModelProto:
    """A part with quantised convolutions.

    samples: inputs of the part, which has one; the ranges of activations are the smallest and largest values on them.
    Raises ValueError without samples.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    left = iter(samples)
    if (first := next(left, None)) is None:
        raise ValueError("calibration: expected images with proposals, got none")
    reader = _Reader(part.graph.input[0].name, itertools.chain([first], left))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(part, before)
        quantize_static(
            before,
            after,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(after)


class _Reader:
    """Gives the samples one by one, as onnxruntime's CalibrationDataReader."""

    def __init__(self, name: str, samples: Iterator[npt.NDArray[np.uint8]]) -> None:
        self._name, self._samples = name, samples

    def get_next(self) -> dict[str, Any] | None:
        """The next input by name; None at the end."""
        sample = next(self._samples, None)
        if sample is None:
            return None
        return {self._name: sample}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (one := self.get_next()) is not None:
            yield one

    def __next__(self) -> dict[str, Any]:
        one = self.get_next()
        if one is None:
            raise StopIteration
        return one


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's warnings on the root logger, as that the model was not preprocessed."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
