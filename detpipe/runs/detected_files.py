"""The detections of many image files, in chunks whose crops share batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path

from detpipe.classify.detect import of_readable
from detpipe.datasets.image_file import AnyImage, BrokenImageError
from detpipe.runs.image_predictor import ImagePredictor
from detpipe.structures import Detections, Float32Array, Image, LeftOut

CHUNK = 8
"""Images of a chunk. The same chunks give the same bits, whoever detects in them."""


def detected_files(
    detector: ImagePredictor, images: Iterable[AnyImage | LeftOut]
) -> Generator[Detections | LeftOut, None, None]:
    """Yield the detections of each image, or why its file can't be read, in order. No images give nothing.

    images: files or pixels. A LeftOut is known to be unreadable, and is given back. Images of a chunk are read ahead.
    """
    waiting = iter(images)
    while chunk := list(islice(waiting, CHUNK)):
        faults: deque[LeftOut] = deque()
        for one in of_readable(detector.predict_many, _read(detector, chunk, faults)):
            yield faults.popleft() if one is None else one


def _read(
    detector: ImagePredictor, chunk: Sequence[AnyImage | LeftOut], faults: deque[LeftOut]
) -> Iterator[tuple[Image, Float32Array] | None]:
    """Yield the pixels and boxes of each image; None for an unreadable one, whose fault is added."""
    for image in chunk:
        if isinstance(image, LeftOut):
            faults.append(image)
            yield None
            continue
        try:
            regions = detector.with_regions(image)
        except (BrokenImageError, OSError) as error:
            if not isinstance(image, (str, PathLike)):
                raise
            faults.append(LeftOut.because(Path(image), error))
            yield None
        else:
            yield regions
