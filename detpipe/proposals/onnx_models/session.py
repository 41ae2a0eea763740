"""A box model in onnxruntime: from an image to boxes in its pixels, and the score of each."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.proposals.onnx_models.input_image import InputImage, fit_image
from detpipe.proposals.onnx_models.model_file import OnnxModelError, model_files
from detpipe.proposals.onnx_models.outputs import OutputError, boxes_of
from detpipe.proposals.onnx_models.presets import Channels, Fit, ModelForm
from detpipe.proposals.onnx_models.ultralytics_metadata import Stated, TurnedBoxesError, stated_by
from detpipe.structures import Float32Array, Image

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
"""onnxruntime's names of the types that an image may have."""
_NUMBERS = {**_DTYPES, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
_GPU = "CUDAExecutionProvider"
_LARGEST_SIDE = 8192
"""Pixels of an input's side. An input of a hostile file could need any memory."""


class OnnxBoxModel:
    """A model and its settings. Threads may share it.

    On a CPU each image is computed by one thread, so that its boxes don't depend on the number of threads.
    input_size: (height, width) of the input; None if the image is given as it is.
    """

    def __init__(self, path: Path, form: ModelForm, input_size: tuple[int, int] | None) -> None:
        self._path = path
        self._session = _open(path)
        stated = self._stated()
        self._form = form if form.classes else replace(form, classes=stated.classes)
        inputs = self._session.get_inputs()
        images = [one for one in inputs if one.name not in _SIZES]
        shape = images[0].shape if len(images) == 1 else []
        if len(images) != 1 or len(shape) not in (3, 4) or images[0].type not in _DTYPES:
            given = ", ".join(f"{one.name} {one.shape} {one.type}" for one in inputs) or "none"
            raise OnnxModelError(
                f"{path}: expected one input for an image, (1, 3, H, W) or (1, H, W, 3) of float or uint8, beside "
                f"{' and '.join(_SIZES)}; got the inputs {given}; export the model for images alone"
            )
        if len(shape) == 4 and isinstance(shape[0], int) and shape[0] != 1:
            raise OnnxModelError(f"{path}: expected a batch of 1 image, got {shape[0]}; export it with a batch of 1")
        self._image, self._dtype = images[0], _DTYPES[images[0].type]
        self._extra = {one.name: _NUMBERS.get(one.type, np.float32) for one in inputs if one.name in _SIZES}
        sides = shape[-3:]
        # Without fixed numbers, an input of bytes is TensorFlow's.
        self._channels_last = sides[2] == 3 if 3 in (sides[0], sides[2]) else self._dtype is np.uint8
        channels = sides[2 if self._channels_last else 0]
        if isinstance(channels, int) and channels != 3:
            raise OnnxModelError(f"{path}: expected an input of 3 channels, got {images[0].name} {shape}")
        sides = sides[:2] if self._channels_last else sides[1:]
        self._size = self._input_size(sides, input_size, stated.input_size or form.input_size)

    def __call__(self, image: Image) -> tuple[Float32Array, Float32Array]:
        """Boxes (N, 4) in pixels of the image, not clipped, and scores (N,), in any order.

        Raises OnnxModelError if the model fails, or its outputs have another layout.
        """
        fitted = fit_image(image, self._size, self._form.fit, self._fill, antialias=self._form.antialias)
        try:
            values = self._session.run(None, self._feeds(fitted))
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise OnnxModelError(
                f"{self._path}: expected a model that takes an image of height and width {fitted.pixels.shape[:2]}, "
                f"got: {_first_line(error)}; correct proposals.input_size and proposals.fit"
            ) from error
        outputs = {
            one.name: value
            for one, value in zip(self._session.get_outputs(), values, strict=True)
            if isinstance(value, np.ndarray)
        }
        height, width = fitted.pixels.shape[:2]
        try:
            boxes, scores = boxes_of(outputs, self._form, (height, width))
        except OutputError as error:
            raise OnnxModelError(f"{self._path}: {error}") from error
        return fitted.to_image(boxes), scores.astype(np.float32)

    @property
    def _fill(self) -> int | tuple[int, int, int]:
        """The level beside the image; one for each of RGB if it is the mean."""
        if self._form.fill is not None:
            return self._form.fill
        first, second, third = (round(level) for level in self._form.mean)
        return (first, second, third) if self._form.channels is Channels.rgb else (third, second, first)

    def _feeds(self, fitted: InputImage) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the model. Sizes are of the input, so that boxes come in its pixels."""
        pixels = fitted.pixels if self._form.channels is Channels.rgb else fitted.pixels[:, :, ::-1]
        if self._dtype is np.uint8:
            tensor: npt.NDArray[Any] = pixels
        else:
            mean, std = np.array(self._form.mean, np.float32), np.array(self._form.std, np.float32)
            tensor = ((pixels.astype(np.float32) - mean) / std).astype(self._dtype)
        if not self._channels_last:
            tensor = tensor.transpose(2, 0, 1)
        if len(self._image.shape) == 4:
            tensor = tensor[None]
        height, width = fitted.pixels.shape[:2]
        sizes: dict[str, npt.NDArray[Any]] = {
            name: np.array([_SIZES[name](height, width)], dtype) for name, dtype in self._extra.items()
        }
        return {self._image.name: np.ascontiguousarray(tensor), **sizes}

    def _fixed(self, sides: list[Any]) -> OnnxModelError:
        return OnnxModelError(
            f"{self._path}: expected an input of any size for proposals.fit={self._form.fit.value}, got one of height "
            f"and width {sides}; export it with height and width as dynamic axes, or give "
            "proposals.fit=stretch, letterbox or top_left, as the model was trained"
        )

    def _stated(self) -> Stated:
        try:
            return stated_by(self._session.get_modelmeta().custom_metadata_map)
        except TurnedBoxesError as error:
            raise OnnxModelError(f"{self._path}: {error}") from error

    def _input_size(
        self, sides: list[Any], wanted: tuple[int, int] | None, default: tuple[int, int]
    ) -> tuple[int, int] | None:
        """The size of the input: the file's own, else the one of the settings, else the default."""
        fixed = [side if isinstance(side, int) and side > 0 else None for side in sides]
        if None in fixed:
            if self._form.fit is Fit.original:
                return None
            if self._form.fit is Fit.shorter_side and fixed != [None, None]:
                raise self._fixed(sides)
            chosen = wanted or default
            size = (fixed[0] or chosen[0], fixed[1] or chosen[1])
        else:
            size = (int(sides[0]), int(sides[1]))
            if self._form.fit in (Fit.original, Fit.shorter_side):
                raise self._fixed(sides)
        if wanted is not None and wanted != size:
            raise OnnxModelError(f"{self._path}: expected proposals.input_size={list(size)}, got {list(wanted)}")
        if max(size) > _LARGEST_SIDE:
            raise OnnxModelError(f"{self._path}: expected an input of at most {_LARGEST_SIDE} pixels, got {size}")
        return size


_SIZES: Mapping[str, Callable[[int, int], Any]] = {
    "orig_target_sizes": lambda height, width: (width, height),
    "im_shape": lambda height, width: (height, width),
    "scale_factor": lambda height, width: (1, 1),  # noqa: ARG005
    "pixel_mask": lambda height, width: np.ones((height, width)),
}
"""Inputs beside the image: of RT-DETR and D-FINE, of PaddleDetection (two), and of transformers."""


def _open(path: Path) -> Any:
    """onnxruntime's session of a file that has been checked. Raises OnnxModelError, and ImportError without it."""
    model_files(path)
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("proposals=onnx: expected onnxruntime, found none; pip install 'detpipe[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says is in its exceptions
    providers = [one for one in (_GPU, "CPUExecutionProvider") if one in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise OnnxModelError(
            f"{path}: expected an ONNX model that onnxruntime {onnxruntime.__version__} runs, got: "
            f"{_first_line(error)}; export it again, or install another onnxruntime"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


_loading = threading.Lock()


def loaded(path: Path, form: ModelForm, input_size: tuple[int, int] | None) -> OnnxBoxModel:
    """The model of a file, loaded once per process while the file does not change. Raises as OnnxBoxModel."""
    with _loading:  # the first of several threads loads it
        return _loaded(path, path.stat().st_mtime_ns, form, input_size)


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, changed: int, form: ModelForm, input_size: tuple[int, int] | None) -> OnnxBoxModel:  # noqa: ARG001
    return OnnxBoxModel(path, form, input_size)
