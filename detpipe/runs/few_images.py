"""A few images of a data set as a data set, for a trial of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detpipe.datasets.entry import Entry
from detpipe.datasets.source import DatasetSource, Split
from detpipe.structures import Dataset


@dataclass(kw_only=True)
class FewImages(DatasetSource):
    """At most `train` training images and `others` images of each other split, evenly spread over it."""

    whole: DatasetSource
    """The data set."""
    train: int
    """Number of training images."""
    others: int
    """Number of images of each other split."""

    def has(self, split: Split) -> bool:
        return self.whole.has(split)

    def annotated(self, split: Split) -> bool:
        return self.whole.annotated(split)

    def entries(self, split: Split) -> Sequence[Entry]:
        return self.whole.entries(split)

    def known_classes(self) -> list[str]:
        return self.whole.known_classes()

    def title(self, split: Split) -> str:
        return self.whole.title(split)

    def load(self, split: Split, *, needs_images: bool = True) -> Dataset:
        """Load the chosen images of a split, as `DatasetSource.load`."""
        dataset = self.whole.load(split, needs_images=needs_images)
        count = min(self.train if split is Split.train else self.others, len(dataset))
        indices = np.linspace(0, len(dataset) - 1, count).round().astype(int)
        records = tuple(dataset.records[index] for index in indices)
        truth = dataset.ground_truth
        return replace(
            dataset,
            records=records,
            ground_truth=None if truth is None else {one.image_id: truth[one.image_id] for one in records},
        )
