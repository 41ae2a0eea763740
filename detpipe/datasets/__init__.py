"""Readers and writers of data sets: the only place of file formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detpipe.datasets.source import DatasetSource
    from detpipe.structures import Dataset


def load_dataset(kind: str, split: str = "test", **settings: Any) -> Dataset:
    """Load a split of a data set.

    kind: "voc", "coco", "images" (a folder of images, or one) or "demo". split: "train", "val" or "test". settings: the
    fields of VocSource, CocoSource, ImageFolderSource or DemoSource: `load_dataset("voc", root="my/folder")`.
    Raises ValueError for another kind or split, TypeError for a setting that the kind doesn't have, and as `load` of
    the source does.
    """
    from detpipe.datasets.source import Split

    if split not in [one.value for one in Split]:
        raise ValueError(f"split: expected {', '.join(one.value for one in Split)}, got {split!r}")
    return _source_class(kind)(**settings).load(Split(split))


def _source_class(kind: str) -> type[DatasetSource]:
    # Imported here, so that one format doesn't load what the others need.
    if kind == "voc":
        from detpipe.datasets.voc import VocSource

        return VocSource
    if kind == "coco":
        from detpipe.datasets.coco import CocoSource

        return CocoSource
    if kind == "images":
        from detpipe.datasets.image_list import ImageFolderSource

        return ImageFolderSource
    if kind == "demo":
        from detpipe.datasets.demo import DemoSource

        return DemoSource
    raise ValueError(f"kind: expected voc, coco, images or demo, got {kind!r}")
