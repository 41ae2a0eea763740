"""The Gaussian baseline of Hosang et al. (PAMI 2015, section 2.3): boxes like the data's, drawn blindly."""

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
from detpipe.proposals.relative_box import RelativeBoxes, from_relative, relative_objects
from detpipe.structures import GroundTruth, Image, ImageRecord, Proposals


@dataclass(kw_only=True)
class Gaussian(Proposer):
    """Boxes drawn from one normal distribution of (centre x, centre y, side, log2 aspect), whatever the image shows.

    The numbers are those of `relative_box`. Draws with a centre outside the image or a side outside (0, 1] of it are
    drawn again, as in the authors' code. The defaults are those of 273 objects in 100 images of VOC 2012.
    """

    mean: list[float] = field(default_factory=lambda: [0.50, 0.54, 0.36, -0.25])
    """Of centre x and y (shares of width and height), side (share of the image's), log2 of width / height."""
    covariance: list[list[float]] = field(
        default_factory=lambda: [
            [0.060, 0.000, -0.003, 0.003],
            [0.000, 0.026, 0.005, 0.014],
            [-0.003, 0.005, 0.050, 0.053],
            [0.003, 0.014, 0.053, 0.855],
        ]
    )
    """Of the same four numbers, 4 x 4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self)
        covariance = np.array(self.covariance)
        if len(self.mean) != 4 or covariance.shape != (4, 4):
            raise ValueError(f"gaussian: expected 4 means and 4 x 4 covariances, got {self.mean} and {self.covariance}")
        if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance).min() <= 0:
            raise ValueError(f"gaussian: expected a symmetric, positive definite covariance, got {self.covariance}")

    @classmethod
    def fit(
        cls, objects: Iterable[tuple[GroundTruth, tuple[int, int]]], *, max_proposals: int = 2000, seed: int = 0
    ) -> Self:
        """The distribution of a data set's objects, from (ground truth, image_size) pairs; crowds are left out.

        Raises ValueError for fewer than five objects: four numbers need that many.
        """
        relative = relative_objects(objects)
        if len(relative) < 5:
            raise ValueError(f"gaussian: expected at least 5 objects to fit to, got {len(relative)}")
        # Objects of one shape alone would give a distribution without width.
        covariance = np.cov(relative.T) + 1e-6 * np.eye(4)
        return cls(
            mean=relative.mean(axis=0).tolist(), covariance=covariance.tolist(), max_proposals=max_proposals, seed=seed
        )

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
        boxes = from_relative(self._draw_valid(generator), image_size)
        return ranked(boxes, scores_of_order(len(boxes)), image_size, self.max_proposals)

    def _draw_valid(self, generator: np.random.Generator) -> RelativeBoxes:
        wanted = require_count(self)
        kept = np.zeros((0, 4))
        for _ in range(1000):
            drawn = generator.multivariate_normal(self.mean, self.covariance, wanted, method="cholesky")
            inside = ((drawn[:, :3] >= 0) & (drawn[:, :3] <= 1)).all(axis=1) & (drawn[:, 2] > 0)
            kept = np.concatenate([kept, drawn[inside]])
            if len(kept) >= wanted:
                return kept[:wanted]
        raise ValueError(f"gaussian: almost no box of this distribution lies in the image: mean {self.mean}")
