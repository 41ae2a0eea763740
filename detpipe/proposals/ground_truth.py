"""The oracle: the objects themselves. What a detector reaches with it is the bound for any proposer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detpipe.proposals.proposer import Proposer, ranked
from detpipe.structures import Dataset, GroundTruth, Image, ImageRecord, Proposals


@dataclass(kw_only=True)
class GroundTruthBoxes(Proposer):
    """The boxes of an image's objects, all with score 1; crowds and boxes without area are left out."""

    def check(self, datasets: Sequence[Dataset] = ()) -> None:
        """Raise ValueError where a data set has no annotations."""
        for dataset in datasets:
            if dataset.ground_truth is None:
                raise ValueError(f"ground_truth: expected a data set with annotations, got {dataset.name} without any")

    @property
    def from_pixels(self) -> bool:
        """False: the objects must be known."""
        return False

    def __call__(self, image: Image) -> Proposals:  # noqa: ARG002
        """Raises ValueError: pixels don't tell the truth."""
        raise ValueError("ground_truth: expected an image of a data set with annotations, got pixels alone")

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:
        """An image without objects gives no proposals. Raises ValueError where the data has no annotations."""
        if ground_truth is None:
            raise ValueError(
                f"ground_truth: expected the objects of image {record.image_id} ({record.path}), but this data set has "
                "no annotations; choose another proposer"
            )
        boxes = ground_truth.boxes[~ground_truth.crowd]
        scores = np.ones(len(boxes), dtype=np.float32)
        return ranked(boxes, scores, (image.shape[0], image.shape[1]), self.max_proposals)
