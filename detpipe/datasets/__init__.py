"""Readers and writers of data sets. All file formats are handled here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detpipe.class_path import load_class

if TYPE_CHECKING:
    from detpipe.datasets.source import DatasetSource
    from detpipe.structures import Dataset

SOURCES = {
    "voc": "detpipe.datasets.voc:VocSource",
    "coco": "detpipe.datasets.coco:CocoSource",
    "images": "detpipe.datasets.image_list:ImageFolderSource",
    "demo": "detpipe.datasets.demo:DemoSource",
}
"""The class of each kind of data set. It is imported on use, so that one format doesn't load what the others need."""


def load_dataset(kind: str, split: str = "test", **settings: Any) -> Dataset:
    """Load a split of a data set.

    kind: "voc", "coco", "images" (a folder of images, or one image) or "demo". split: "train", "val" or "test".
    settings: the fields of VocSource, CocoSource, ImageFolderSource or DemoSource, as in
    `load_dataset("voc", root="my/folder")`.
    Raises ValueError for an unknown kind or split, TypeError for an unknown setting, and the errors of the source's
    `load`.
    """
    from detpipe.datasets.source import Split

    if split not in [one.value for one in Split]:
        raise ValueError(f"split: expected {', '.join(one.value for one in Split)}, got {split!r}")
    if kind not in SOURCES:
        raise ValueError(f"kind: expected {', '.join(SOURCES)}, got {kind!r}")
    source: DatasetSource = load_class(SOURCES[kind])(**settings)
    return source.load(Split(split))
