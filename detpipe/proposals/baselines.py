"""The baselines of Hosang et al. (PAMI 2015, section 2.3), which don't look at the image, and the ground-truth oracle.

The random baselines draw a box as four numbers, a row of an (N, 4) float64 array: x and y of the centre as shares of
the image's width and height, the square root of the area as a share of the image's, and log2 of width / height.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from detpipe.boxes import area
from detpipe.datasets.image_file import AnyImage, as_image
from detpipe.proposals.proposer import Proposer, ranked, require_count, scores_of_order
from detpipe.randomness import generator_for, generator_for_pixels
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageRecord, Proposals

RelativeBoxes = npt.NDArray[np.float64]


def to_relative(boxes: Float32Array, image_size: tuple[int, int]) -> RelativeBoxes:
    """(N, 4) boxes with an area, (height, width) -> (N, 4) relative boxes."""
    height, width = image_size
    box_width, box_height = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).T
    return np.stack(
        [
            (boxes[:, 0] + boxes[:, 2]) / 2.0 / width,
            (boxes[:, 1] + boxes[:, 3]) / 2.0 / height,
            np.sqrt(box_width * box_height / (width * height)),
            np.log2(box_width / box_height),
        ],
        axis=1,
    )


def from_relative(relative: RelativeBoxes, image_size: tuple[int, int]) -> Float32Array:
    """The inverse of `to_relative`: (N, 4), (height, width) -> (N, 4) float32 boxes, not clipped."""
    height, width = image_size
    centre = relative[:, :2] * (width, height)
    side = relative[:, 2] * np.sqrt(width * height)
    stretch = np.exp2(relative[:, 3] / 2)
    half = np.stack([side * stretch, side / stretch], axis=1) / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def relative_objects(objects: Iterable[tuple[GroundTruth, tuple[int, int]]]) -> RelativeBoxes:
    """All objects of (ground truth, image_size) pairs, without crowds and empty boxes -> (N, 4)."""
    rows = [np.zeros((0, 4))]
    for ground_truth, image_size in objects:
        boxes = ground_truth.boxes[~ground_truth.crowd]
        rows.append(to_relative(boxes[area(boxes) > 0], image_size))
    return np.concatenate(rows)


@dataclass(kw_only=True)
class RandomBoxes(Proposer):
    """`max_proposals` boxes drawn from one distribution for all images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self)

    @abc.abstractmethod
    def draw(self, generator: np.random.Generator) -> RelativeBoxes:
        """`max_proposals` relative boxes."""

    def __call__(self, image: AnyImage) -> Proposals:
        """The boxes depend on the seed and the pixels."""
        image = as_image(image)
        return self._boxes(image, generator_for_pixels(self.seed, image))

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:  # noqa: ARG002
        """The boxes depend on the seed and the image's id."""
        image = as_image(image)
        return self._boxes(image, generator_for(self.seed, record.image_id))

    def _boxes(self, image: Image, generator: np.random.Generator) -> Proposals:
        image_size = (image.shape[0], image.shape[1])
        boxes = from_relative(self.draw(generator), image_size)
        return ranked(boxes, scores_of_order(len(boxes)), image_size, self.max_proposals)


@dataclass(kw_only=True)
class Uniform(RandomBoxes):
    """Random boxes: centre x, centre y, size and log2 aspect ratio are drawn uniformly and independently.

    The default ranges hold the middle 99 % of 273 objects in 100 images of VOC 2012 (the paper: of VOC 2007).
    """

    low: list[float] = field(default_factory=lambda: [0.03, 0.10, 0.04, -2.5])
    """Smallest centre x, centre y (shares of the image's width and height), size (square root of the box's area as a
    share of the image's) and log2 of width / height."""
    high: list[float] = field(default_factory=lambda: [0.97, 0.86, 0.94, 2.0])
    """Largest centre x, centre y, size and log2 of width / height, in the same units as `low`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.low) != 4 or len(self.high) != 4 or not (np.array(self.low) <= np.array(self.high)).all():
            raise ValueError(f"uniform: expected 4 numbers low <= high each, got {self.low} and {self.high}")
        if self.low[2] <= 0:
            raise ValueError(f"uniform: expected a smallest size above 0 in low, got {self.low[2]}")

    @classmethod
    def fit(
        cls, objects: Iterable[tuple[GroundTruth, tuple[int, int]]], *, max_proposals: int = 2000, seed: int = 0
    ) -> Self:
        """The ranges of the middle 99 % of the objects of (ground truth, image_size) pairs, without crowds.

        Raises ValueError if there is no object.
        """
        relative = relative_objects(objects)
        if not len(relative):
            raise ValueError("uniform: expected at least one object to fit to, got none")
        low, high = np.quantile(relative, [0.005, 0.995], axis=0)
        return cls(low=low.tolist(), high=high.tolist(), max_proposals=max_proposals, seed=seed)

    def draw(self, generator: np.random.Generator) -> RelativeBoxes:
        """`max_proposals` relative boxes."""
        return generator.uniform(self.low, self.high, (require_count(self), 4))


@dataclass(kw_only=True)
class Gaussian(RandomBoxes):
    """Random boxes: centre x, centre y, size and log2 aspect ratio are drawn from one normal distribution.

    Draws with a centre outside the image or a size outside (0, 1] are repeated, as in the authors' code. The defaults
    are fitted to 273 objects in 100 images of VOC 2012.
    """

    mean: list[float] = field(default_factory=lambda: [0.50, 0.54, 0.36, -0.25])
    """Mean centre x, centre y (shares of the image's width and height), size (square root of the box's area as a share
    of the image's) and log2 of width / height."""
    covariance: list[list[float]] = field(
        default_factory=lambda: [
            [0.060, 0.000, -0.003, 0.003],
            [0.000, 0.026, 0.005, 0.014],
            [-0.003, 0.005, 0.050, 0.053],
            [0.003, 0.014, 0.053, 0.855],
        ]
    )
    """4 x 4 covariance of centre x, centre y, size and log2 of width / height."""

    def __post_init__(self) -> None:
        super().__post_init__()
        covariance = np.array(self.covariance)
        if len(self.mean) != 4 or covariance.shape != (4, 4):
            raise ValueError(f"gaussian: expected 4 means and 4 x 4 covariances, got {self.mean} and {self.covariance}")
        if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance).min() <= 0:
            raise ValueError(f"gaussian: expected a symmetric, positive definite covariance, got {self.covariance}")

    @classmethod
    def fit(
        cls, objects: Iterable[tuple[GroundTruth, tuple[int, int]]], *, max_proposals: int = 2000, seed: int = 0
    ) -> Self:
        """The distribution of the objects of (ground truth, image_size) pairs, without crowds.

        Raises ValueError for fewer than five objects, which don't determine a covariance of four numbers.
        """
        relative = relative_objects(objects)
        if len(relative) < 5:
            raise ValueError(f"gaussian: expected at least 5 objects to fit to, got {len(relative)}")
        # The diagonal keeps the covariance positive definite if all objects have the same shape.
        covariance = np.cov(relative.T) + 1e-6 * np.eye(4)
        return cls(
            mean=relative.mean(axis=0).tolist(), covariance=covariance.tolist(), max_proposals=max_proposals, seed=seed
        )

    def draw(self, generator: np.random.Generator) -> RelativeBoxes:
        """`max_proposals` relative boxes. Raises ValueError if almost every draw lies outside the image."""
        count = require_count(self)
        kept = np.zeros((0, 4))
        for _ in range(1000):
            drawn = generator.multivariate_normal(self.mean, self.covariance, count, method="cholesky")
            inside = ((drawn[:, :3] >= 0) & (drawn[:, :3] <= 1)).all(axis=1) & (drawn[:, 2] > 0)
            kept = np.concatenate([kept, drawn[inside]])
            if len(kept) >= count:
                return kept[:count]
        raise ValueError(
            f"gaussian: expected a mean with boxes inside the image, but almost no box lies inside with {self.mean}"
        )


_WIDTHS_OF_HEIGHT = {
    512: (512, 256, 128, 64),
    256: (512, 256, 128, 64, 32),
    128: (512, 256, 128, 64, 32, 16),
    64: (512, 256, 128, 64, 32, 16),
    32: (128, 64, 32, 16),
    16: (64, 32, 16),
}
"""The window sizes of the authors' code in pixels (after BING, Cheng et al. 2014)."""


@dataclass(kw_only=True)
class SlidingWindow(Proposer):
    """Regular grids of windows. Each window size that fits into the image gets an equal part of the proposals.

    If some size doesn't fit, the whole image is also a window. The order is shuffled with the seed, so that the first
    k windows are spread over all sizes and positions.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self)

    def __call__(self, image: AnyImage) -> Proposals:
        """The same windows for all images of one size. Raises ValueError for another shape or dtype."""
        image = as_image(image)
        image_size = (image.shape[0], image.shape[1])
        boxes = _windows(image_size, require_count(self))
        boxes = boxes[generator_for(self.seed, "sliding window").permutation(len(boxes))]
        return ranked(boxes, scores_of_order(len(boxes)), image_size, self.max_proposals)


def _windows(image_size: tuple[int, int], count: int) -> Float32Array:
    """At most `count` windows, but at least one of each size that fits. -> (N, 4)."""
    height, width = image_size
    sizes = [(h, w) for h, widths in _WIDTHS_OF_HEIGHT.items() for w in widths]
    fitting = [(h, w) for h, w in sizes if h <= height and w <= width]
    whole = np.array([[0, 0, width, height]], dtype=np.float32)
    grids = [whole] if len(fitting) < len(sizes) else []
    for h, w in fitting:
        grids.append(_grid(h, w, image_size, max((count - len(grids[:1])) // len(fitting), 1)))
    return np.concatenate(grids)


def _grid(h: int, w: int, image_size: tuple[int, int], count: int) -> Float32Array:
    """At most `count` windows of h x w pixels with the same stride in x and y, the grid centred in the image."""
    spare_y, spare_x = image_size[0] - h, image_size[1] - w
    stride = max(np.sqrt(spare_x * spare_y / count), 1.0)
    while (int(spare_x / stride) + 1) * (int(spare_y / stride) + 1) > count:
        stride *= 1.01
    xs = spare_x % stride / 2 + stride * np.arange(int(spare_x / stride) + 1)
    ys = spare_y % stride / 2 + stride * np.arange(int(spare_y / stride) + 1)
    x, y = np.meshgrid(np.floor(xs), np.floor(ys))
    return np.stack([x, y, x + w, y + h], axis=-1).reshape(-1, 4).astype(np.float32)


@dataclass(kw_only=True)
class GroundTruthBoxes(Proposer):
    """The boxes of an image's objects, all with score 1, without crowds and empty boxes.

    A detector's result with these is an upper bound for its result with any proposer.
    """

    def check(self, datasets: Sequence[Dataset] = ()) -> None:
        """Raise ValueError if a data set has no annotations."""
        for dataset in datasets:
            if dataset.ground_truth is None:
                raise ValueError(f"ground_truth: expected a data set with annotations, got {dataset.name} without any")

    @property
    def from_pixels(self) -> bool:
        """False: the objects must be known."""
        return False

    @property
    def uses_objects(self) -> bool:
        """True: they are the objects' boxes."""
        return True

    def __call__(self, image: AnyImage) -> Proposals:  # noqa: ARG002
        """Raises ValueError: the objects can't be found from pixels."""
        raise ValueError("ground_truth: expected an image of a data set with annotations, got pixels alone")

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:
        """An image without objects has no proposals. Raises ValueError if the data has no annotations."""
        if ground_truth is None:
            raise ValueError(
                f"ground_truth: expected the objects of image {record.image_id} ({record.path}), but this data set has "
                "no annotations; choose another proposer"
            )
        boxes = ground_truth.boxes[~ground_truth.crowd]
        scores = np.ones(len(boxes), dtype=np.float32)
        return ranked(boxes, scores, (image.shape[0], image.shape[1]), self.max_proposals)
