"""The uniform baseline of Hosang et al. (PAMI 2015, section 2.3): boxes of any place, size and shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from detpipe.proposals.proposer import (
    Proposer,
    check_image,
    generator_for,
    generator_for_pixels,
    ranked,
    require_count,
    scores_of_order,
)
from detpipe.proposals.relative_box import from_relative, relative_objects
from detpipe.structures import GroundTruth, Image, ImageRecord, Proposals


@dataclass(kw_only=True)
class Uniform(Proposer):
    """Boxes with centre x, centre y, side and log2 aspect drawn evenly and independently, whatever the image shows.

    The numbers are those of `relative_box`. The defaults are the ranges of the middle 99 % of 273 objects in 100
    images of VOC 2012 (the paper takes the middle 99 % of VOC 2007).
    """

    low: list[float] = field(default_factory=lambda: [0.03, 0.10, 0.04, -2.5])
    """Least centre x and y (shares of width and height), side (share of the image's), log2 of width / height."""
    high: list[float] = field(default_factory=lambda: [0.97, 0.86, 0.94, 2.0])
    """Largest of the same four numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self)
        if len(self.low) != 4 or len(self.high) != 4 or not (np.array(self.low) <= np.array(self.high)).all():
            raise ValueError(f"uniform: expected 4 numbers low <= high each, got {self.low} and {self.high}")
        if self.low[2] <= 0:
            raise ValueError(f"uniform: expected a least side above 0, got {self.low[2]}")

    @classmethod
    def fit(
        cls, objects: Iterable[tuple[GroundTruth, tuple[int, int]]], *, max_proposals: int = 2000, seed: int = 0
    ) -> Self:
        """The ranges of the middle 99 % of a data set's objects, from (ground truth, image_size) pairs.

        Crowds are left out. Raises ValueError where there is no object.
        """
        relative = relative_objects(objects)
        if not len(relative):
            raise ValueError("uniform: expected at least one object to fit to, got none")
        low, high = np.quantile(relative, [0.005, 0.995], axis=0)
        return cls(low=low.tolist(), high=high.tolist(), max_proposals=max_proposals, seed=seed)

    def __call__(self, image: Image) -> Proposals:
        """Drawn from the seed and the pixels."""
        check_image(image)
        return self._draw(image, generator_for_pixels(self.seed, image))

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:  # noqa: ARG002
        """Drawn from the seed and the image's id."""
        check_image(image)
        return self._draw(image, generator_for(self.seed, record.image_id))

    def _draw(self, image: Image, generator: np.random.Generator) -> Proposals:
        image_size = (image.shape[0], image.shape[1])
        relative = generator.uniform(self.low, self.high, (require_count(self), 4))
        boxes = from_relative(relative, image_size)
        return ranked(boxes, scores_of_order(len(boxes)), image_size, self.max_proposals)
