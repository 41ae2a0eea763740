"""Readers and writers of data sets. All file formats are handled here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detpipe.datasets.source import DatasetSource
    from detpipe.structures import Dataset


def load_dataset(kind: str, split: str = "test", **settings: Any) -> Dataset:
    """Load a split of a data set.

    kind: "voc", "coco", "images" (a folder of images, or one image) or "demo". split: "train", "val" or "test".
    settings: the fields of VocSource, CocoSource, ImageFolderSource or DemoSource, as in
    `load_dataset("voc", root="my/folder")`.
    Raises ValueError for an unknown kind or split, TypeError for an unknown setting, and the errors of the source's
    `load`.
    """
    from detpipe.backbone.caffe.joining import Split

    if split not in [one.value for one in Split]:
        raise ValueError(f"split: expected {', '.join(one.value for one in Split)}, got {split!r}")
    return _source_class(kind)(**settings).load(Split(split))


def _source_class(kind: str) -> type[DatasetSource]:
    # Imported here, so that one format doesn't import the dependencies of the others.
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
