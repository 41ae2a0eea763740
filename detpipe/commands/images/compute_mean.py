"""`detpipe compute-mean`: the mean image of a database, as computed by Caffe's compute_image_mean."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.classify.images.database import ImagesReader
from detpipe.console import RESULT
from detpipe.progress import progress
from detpipe.runs.command import Command
from detpipe.storage.mean_file import MAX_BYTES, check_suffix, write_mean
from detpipe.structures import Float32Array

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ComputeMean(Command):
    """Settings of `detpipe compute-mean`."""

    db: str | None = None
    """A database of images, written by make-db or Caffe."""
    out: str | None = None
    """The file to write: .binaryproto or .npy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None:
            check_suffix(Path(self.out))


def run(config: ComputeMean) -> None:
    """Write the mean image and log the mean of each channel."""
    if config.db is None or config.out is None:
        raise ValueError("db, out: expected a database and a file to write, got none; give db=DB out=FILE.binaryproto")
    path = Path(config.out)
    with ImagesReader(Path(config.db)) as reader:
        mean = mean_image(reader)
        count = len(reader)
    write_mean(path, mean)
    names = ("blue", "green", "red") if len(mean) == 3 else ("grey",)
    values = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, channel_means(mean), strict=True))
    logger.log(RESULT, "compute-mean: %d images of %d x %d: %s -> %s", count, *mean.shape[1:], values, path)


def mean_image(reader: ImagesReader) -> Float32Array:
    """Return the mean (C, H, W), 0..255, with BGR or grey planes.

    The sums are integers. Caffe's sums are float32, which is exact up to 65,793 images; up to there, both means are
    equal bit for bit. Raises ValueError for an empty database, or images of several sizes.
    """
    if not len(reader):
        raise ValueError(f"{reader.path}: expected images to take the mean of, got an empty database; make it again")
    total: npt.NDArray[np.uint64] | None = None
    for index in progress(range(len(reader)), "mean", total=len(reader), unit="images"):
        planes = reader.planes(index)
        if 4 * planes.size > MAX_BYTES:
            raise ValueError(
                f"{reader.where(index)}: expected images whose mean has at most {MAX_BYTES:,} bytes, got "
                f"{planes.shape} (C, H, W); make the database with a smaller resize"
            )
        if total is None:
            total = np.zeros(planes.shape, dtype=np.uint64)
        if planes.shape != total.shape:
            raise ValueError(
                f"{reader.path}, record {reader.key(index).decode(errors='replace')}: expected {total.shape} "
                f"(C, H, W) as the first image, got {planes.shape}; make the database with resize=HEIGHTxWIDTH"
            )
        total += planes
    assert total is not None
    return (total / len(reader)).astype(np.float32)


def channel_means(mean: Float32Array) -> list[float]:
    """Return the mean of each plane, for an input spec without a mean image."""
    return [float(value) for value in mean.mean(axis=(1, 2), dtype=np.float64)]
