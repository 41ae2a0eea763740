"""What networks that learn from whole images learn from: images with their objects, or with proposals for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.datasets.source import hold_max_bad
from detpipe.network.annotated_batches import AnnotatedImage
from detpipe.progress import progress
from detpipe.runs.training_images import Part
from detpipe.structures import Float32Array, GroundTruth, ImageRecord, LeftOut

Target = tuple[ImageRecord, GroundTruth, Float32Array | None]
"""An image, what it is to teach, and what each of that is worth (None: all the same)."""


def true_targets(part: Part) -> Iterator[Target]:
    """The images of a part with their annotated objects."""
    truth = part.dataset.ground_truth
    assert truth is not None
    yield from ((record, truth[record.image_id], None) for record in part.records)


def objects_of(targets: Iterable[Target]) -> tuple[Float32Array, Float32Array]:
    """Boxes (G, 4) of all objects that teach, and the (height, width) (G, 2) of their images."""
    none = np.zeros((0, 4), dtype=np.float32)
    boxes, sizes = [none], [none[:, :2]]
    for record, truth, _ in targets:
        solid = (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(axis=1) & ~(truth.difficult | truth.crowd)
        boxes.append(truth.boxes[solid])
        sizes.append(np.tile(np.asarray(record.image_size, dtype=np.float32), (int(solid.sum()), 1)))
    return np.concatenate(boxes), np.concatenate(sizes)


def readable(targets: Iterable[Target], total: int, max_bad: float) -> list[AnnotatedImage]:
    """The images that can be read, each looked at once; the others are named.

    Raises TooManyBadError where more than max_bad of `total` can't.
    """
    images, bad = [], []
    for record, truth, weight in progress(targets, "read", total=total, unit="image"):
        try:
            read_image(record.path)
            images.append(AnnotatedImage(record.path, truth, weight))
        except (BrokenImageError, OSError) as error:
            bad.append(LeftOut.because(record.path, error))
    hold_max_bad(bad, total, max_bad, "dataset.max_bad")
    return images
