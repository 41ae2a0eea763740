"""The mean that is subtracted from images, from Caffe's files of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.backbone.caffe.blob import read_blob

MAX_MEAN_FILE = 2**28
"""Bytes: a mean image of 256 x 256 has less than a hundredth."""


def read_mean(path: Path) -> tuple[float, ...]:
    """The mean of each channel, in the file's order (Caffe: BGR), from a .npy or .binaryproto: (C, H, W), or (C,).

    A mean image is averaged over its places, so that it fits any input size. Raises FileNotFoundError; ValueError for
    a file that is none of the two, or has another number of channels than 1 or 3.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file of a mean: {path}")
    if path.stat().st_size > MAX_MEAN_FILE:
        raise ValueError(f"{path}: wanted a mean of at most {MAX_MEAN_FILE} bytes, got {path.stat().st_size}")
    mean = _read_npy(path) if path.suffix == ".npy" else read_blob(memoryview(path.read_bytes()), str(path)).array
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim not in (1, 3) or mean.shape[0] not in (1, 3) or mean.size == 0:
        raise ValueError(f"{path}: wanted a mean of 1 or 3 channels, (C, H, W) or (C,), got {mean.shape}")
    return tuple(float(value) for value in mean.reshape(mean.shape[0], -1).mean(1, dtype=np.float64))


def _read_npy(path: Path) -> npt.NDArray[np.floating]:
    try:
        # Mapped, so that a header's claim costs nothing; a pickle in it is refused.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: wanted a .npy file of numbers ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: wanted a .npy file of numbers, got another thing")
    return array
