"""The mean that is subtracted from images, one number a channel, from Caffe's files of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detpipe.storage.mean_file import read_mean


def channel_means(path: Path) -> tuple[float, ...]:
    """The mean of each channel, 3 or 1, in the file's order (Caffe: BGR), from what `read_mean` reads.

    A mean image is averaged over its places, so that it fits any input size. Raises as `read_mean` does.
    """
    return tuple(float(value) for value in read_mean(path).mean((1, 2), dtype=np.float64))
