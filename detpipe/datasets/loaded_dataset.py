"""A loaded split as a sequence of images with their objects, and the settings it was loaded with."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, SupportsIndex, overload

from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import DatasetSource
from detpipe.structures import Dataset, GroundTruth, Image, ImageId, ImageRecord


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One image of a data set.

    record: its file, size and id. objects: its objects, with boxes clipped to the image; empty if it has none or is not
    annotated. classes: of the data set, in label order.
    """

    record: ImageRecord
    objects: GroundTruth
    classes: tuple[str, ...]

    @property
    def image(self) -> Image:
        """The image, (H, W, 3) uint8 RGB. The file is read each time. Raises the errors of `read_image`."""
        return read_image(self.record.path, self.record.options)

    @property
    def image_id(self) -> ImageId:
        """The id in the data set and in result files."""
        return self.record.image_id

    @property
    def path(self) -> Path:
        """The image's file."""
        return self.record.path

    @property
    def names(self) -> list[str]:
        """The name of each object's class."""
        return [self.classes[label - 1] for label in self.objects.labels.tolist()]

    def __repr__(self) -> str:
        height, width = self.record.image_size
        return f"DatasetItem({self.path.name}, {width} x {height} pixels: {', '.join(self.names) or 'no objects'})"


@dataclass(frozen=True, eq=False, repr=False)
class LoadedDataset(Dataset):
    """A split of a data set that was loaded from files. `load_dataset` returns it.

    `dataset[0]` gives a `DatasetItem`, `dataset["name"]` the one with this id or file name, and `dataset[:10]` the data
    set of the first ten images. Iteration gives each image in order.
    source: the settings that it was loaded with; None for a slice, which is a part of what they load.
    """

    source: DatasetSource | None = None

    @classmethod
    def of(cls, dataset: Dataset, source: DatasetSource) -> Self:
        """The data set with its settings. Nothing is copied."""
        return cls(
            name=dataset.name,
            classes=dataset.classes,
            category_ids=dataset.category_ids,
            records=dataset.records,
            ground_truth=dataset.ground_truth,
            bad=dataset.bad,
            source=source,
        )

    def __iter__(self) -> Iterator[DatasetItem]:
        return map(self._item, self.records)

    @overload
    def __getitem__(self, index: SupportsIndex | str) -> DatasetItem: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: SupportsIndex | str | slice) -> DatasetItem | Self:
        """An image by its position, by its id as text or its file name, or the data set of a slice of the images.

        Raises IndexError for a position and KeyError for a name that the data set does not have, KeyError for a file
        name that several images have, and TypeError for another index.
        """
        if isinstance(index, str):
            return self._item(self._named(index))
        if isinstance(index, slice):
            return replace(self, records=self.records[index], source=None)
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(
                f"{self.name}: expected a position below {len(self)}, the number of images, got {position}"
            )
        return self._item(self.records[position])

    def _item(self, record: ImageRecord) -> DatasetItem:
        objects = None if self.ground_truth is None else self.ground_truth[record.image_id]
        return DatasetItem(record, GroundTruth.from_boxes([], []) if objects is None else objects, self.classes)

    def _named(self, name: str) -> ImageRecord:
        for record in self.records:
            if str(record.image_id) == name:
                return record
        found = [record for record in self.records if record.path.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(str(record.image_id) for record in found[:3])
            raise KeyError(
                f"{self.name}: expected the name of one image, got {name}, which {len(found)} have; give an id: {ids}"
            )
        near = difflib.get_close_matches(name, [str(record.image_id) for record in self.records], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise KeyError(f"{self.name}: expected the id or file name of an image, got {name}" + hint)

    def __repr__(self) -> str:
        return f"LoadedDataset({self.name}: {len(self)} images, classes {', '.join(self.classes)})"
