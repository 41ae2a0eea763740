"""`detpipe compute-mean`: the mean image of a database, as Caffe's compute_image_mean makes it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.classify.images.database import ImagesReader
from detpipe.progress import progress
from detpipe.runs.command import Command
from detpipe.storage.mean_file import check_suffix, write_mean
from detpipe.structures import Float32Array

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ComputeMean(Command):
    """Settings of `detpipe compute-mean`."""

    db: str | None = None
    """A database that make-db or Caffe wrote."""
    out: str | None = None
    """The file to write: .binaryproto or .npy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None:
            check_suffix(Path(self.out))


def run(config: ComputeMean) -> None:
    """Write the mean image and say the mean of each channel."""
    if config.db is None or config.out is None:
        raise ValueError("compute-mean: expected a database and a file to write; give db=DB out=FILE.binaryproto")
    path = Path(config.out)
    with ImagesReader(Path(config.db)) as reader:
        mean = mean_image(reader)
        count = len(reader)
    write_mean(path, mean)
    names = ("blue", "green", "red") if len(mean) == 3 else ("grey",)
    values = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, channel_means(mean), strict=True))
    logger.info("compute-mean: %d images of %d x %d: %s -> %s", count, *mean.shape[1:], values, path)


def mean_image(reader: ImagesReader) -> Float32Array:
    """The mean (C, H, W), 0..255, planes BGR or grey. Raises ValueError for no images or images of several sizes.

    Sums are whole numbers. Caffe's are float32, which holds them up to 65,793 images: so far both means are the same
    to the bit; beyond, Caffe's sums are rounded and these are not.
    """
    if not len(reader):
        raise ValueError(f"{reader.path}: expected images to take the mean of, got an empty database")
    total: npt.NDArray[np.uint64] | None = None
    for place in progress(range(len(reader)), "mean", total=len(reader), unit="image"):
        planes = reader.planes(place)
        if total is None:
            total = np.zeros(planes.shape, dtype=np.uint64)
        if planes.shape != total.shape:
            raise ValueError(
                f"{reader.path}, record {reader.key(place).decode(errors='replace')}: expected {total.shape} "
                f"(C, H, W) as the first image, got {planes.shape}; make the database with resize=HEIGHTxWIDTH"
            )
        total += planes
    assert total is not None
    return (total / len(reader)).astype(np.float32)


def channel_means(mean: Float32Array) -> list[float]:
    """The mean of each plane: what an input spec takes in place of an image."""
    return [float(value) for value in mean.mean(axis=(1, 2), dtype=np.float64)]
