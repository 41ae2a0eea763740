"""The table of data set formats: a word of `dataset=` and the class of its settings.

A new format is one line here.
"""

from __future__ import annotations

from collections.abc import Mapping

FORMATS: Mapping[str, str] = {
    "voc": "detpipe.datasets.voc:VocSource",
    "coco": "detpipe.datasets.coco:CocoSource",
    "yolo": "detpipe.datasets.yolo:YoloSource",
    "csv": "detpipe.datasets.csv_boxes:CsvSource",
    "openimages": "detpipe.datasets.open_images:OpenImagesSource",
    "labelstudio": "detpipe.datasets.label_studio:LabelStudioSource",
    "cvat": "detpipe.datasets.cvat:CvatSource",
    "labelme": "detpipe.datasets.labelme:LabelmeSource",
    "images": "detpipe.datasets.image_list:ImageFolderSource",
    "image_labels": "detpipe.datasets.image_labels:ImageLabelsSource",
    "demo": "detpipe.datasets.demo:DemoSource",
}
"""Word -> "module:Class". Nothing is imported before a word is chosen."""

AUTO = "auto"
"""The word by which the format is found: `datasets/auto.py`."""


def format_word(kind: type) -> str | None:
    """The word of a class of settings; None for a class that is not in the table."""
    path = f"{kind.__module__}:{kind.__qualname__}"
    return next((word for word, listed in FORMATS.items() if listed == path), None)
