"""Training images for networks that take whole images: each image with its objects, or with proposals as targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.datasets.source import hold_max_bad
from detpipe.network.annotated_batches import AnnotatedImage
from detpipe.network.box_views import cut
from detpipe.progress import progress
from detpipe.runs.training_images import Part
from detpipe.structures import Float32Array, GroundTruth, ImageRecord, LeftOut
from detpipe.tiles import TilesConfig, Windows

Target = tuple[ImageRecord, GroundTruth, Float32Array | None]
"""An image, its target boxes, and the loss weight of each box (None: equal weights)."""


def true_targets(part: Part) -> Iterator[Target]:
    """Yield the images of a part with their annotated objects as targets."""
    truth = part.dataset.ground_truth
    assert truth is not None
    yield from ((record, truth[record.image_id], None) for record in part.records)


def objects_of(targets: Iterable[Target], tiles: TilesConfig) -> tuple[Float32Array, Float32Array]:
    """Return the boxes (G, 4) of all objects used in training, and the (height, width) (G, 2) of their images.

    Each tile is an image of its own, and so is the whole image if it counts as one. Difficult objects, crowds and boxes
    without area are left out. No objects give arrays with 0 rows.
    """
    empty = np.zeros((0, 4), dtype=np.float32)
    boxes, sizes = [empty], [empty[:, :2]]
    for record, truth, _ in targets:
        windows = Windows.of(record.image_size, tiles)
        for x1, y1, x2, y2 in map(windows.window, range(len(windows))):
            seen = cut(truth, (x1, y1, x2, y2))
            used = (seen.boxes[:, 2:] > seen.boxes[:, :2]).all(axis=1) & ~(seen.difficult | seen.crowd)
            boxes.append(seen.boxes[used])
            sizes.append(np.tile(np.array([y2 - y1, x2 - x1], dtype=np.float32), (int(used.sum()), 1)))
    return np.concatenate(boxes), np.concatenate(sizes)


def readable(targets: Iterable[Target], total: int, max_bad: float) -> list[AnnotatedImage]:
    """Read each image once; return those that can be read and log the others.

    Raises TooManyBadError if more than the share max_bad of `total` images is unreadable.
    """
    images, bad = [], []
    for record, truth, weight in progress(targets, "read", total=total, unit="images"):
        try:
            read_image(record.path, record.options)
            images.append(AnnotatedImage(record.path, truth, weight, record.options))
        except (BrokenImageError, OSError) as error:
            bad.append(LeftOut.because(record.path, error))
    hold_max_bad(bad, total, max_bad, "dataset.max_bad")
    return images
