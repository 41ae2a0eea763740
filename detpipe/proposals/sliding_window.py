"""The sliding-window baseline of Hosang et al. (PAMI 2015, section 2.3): regular grids of windows of BING's sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detpipe.proposals.proposer import (
    Proposer,
    check_image,
    generator_for,
    ranked,
    require_count,
    scores_of_order,
)
from detpipe.structures import Float32Array, Image, Proposals

_WIDTHS_OF_HEIGHT = {
    512: (512, 256, 128, 64),
    256: (512, 256, 128, 64, 32),
    128: (512, 256, 128, 64, 32, 16),
    64: (512, 256, 128, 64, 32, 16),
    32: (128, 64, 32, 16),
    16: (64, 32, 16),
}
"""The window sizes of the authors' code, pixels (after BING, Cheng et al. 2014)."""


@dataclass(kw_only=True)
class SlidingWindow(Proposer):
    """The number of proposals is shared out among the window sizes that fit; each size stands on its even grid.

    Where some size doesn't fit, the whole image is a window, too. The order is shuffled by the seed, so that the first
    k are spread over all sizes and places.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self)

    def __call__(self, image: Image) -> Proposals:
        """The same windows for every image of one size; raises ValueError for another shape or dtype."""
        check_image(image)
        image_size = (image.shape[0], image.shape[1])
        boxes = _windows(image_size, require_count(self))
        boxes = boxes[generator_for(self.seed, "sliding window").permutation(len(boxes))]
        return ranked(boxes, scores_of_order(len(boxes)), image_size, self.max_proposals)


def _windows(image_size: tuple[int, int], count: int) -> Float32Array:
    """At most `count` windows, except that each size has one at least. -> (N, 4)."""
    height, width = image_size
    sizes = [(h, w) for h, widths in _WIDTHS_OF_HEIGHT.items() for w in widths]
    fitting = [(h, w) for h, w in sizes if h <= height and w <= width]
    whole = np.array([[0, 0, width, height]], dtype=np.float32)
    grids = [whole] if len(fitting) < len(sizes) else []
    for h, w in fitting:
        grids.append(_grid(h, w, image_size, max((count - len(grids[:1])) // len(fitting), 1)))
    return np.concatenate(grids)


def _grid(h: int, w: int, image_size: tuple[int, int], count: int) -> Float32Array:
    """At most `count` windows of h x w pixels, the same stride in x and y, the grid in the middle of the image."""
    spare_y, spare_x = image_size[0] - h, image_size[1] - w
    stride = max(np.sqrt(spare_x * spare_y / count), 1.0)
    while (int(spare_x / stride) + 1) * (int(spare_y / stride) + 1) > count:
        stride *= 1.01
    xs = spare_x % stride / 2 + stride * np.arange(int(spare_x / stride) + 1)
    ys = spare_y % stride / 2 + stride * np.arange(int(spare_y / stride) + 1)
    x, y = np.meshgrid(np.floor(xs), np.floor(ys))
    return np.stack([x, y, x + w, y + h], axis=-1).reshape(-1, 4).astype(np.float32)
