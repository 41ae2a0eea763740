"""The table of data set formats: a word of `dataset=` and the class of its settings.

A new format is one line here, or a plug-in (docs/plugins.md).
"""

from __future__ import annotations

from detpipe.plugins import PluginTable

_ROWS = {
    "voc": "detpipe.datasets.voc:VocSource",
    "coco": "detpipe.datasets.coco:CocoSource",
    "yolo": "detpipe.datasets.yolo:YoloSource",
    "csv": "detpipe.datasets.csv_boxes:CsvSource",
    "openimages": "detpipe.datasets.open_images:OpenImagesSource",
    "labelstudio": "detpipe.datasets.label_studio:LabelStudioSource",
    "cvat": "detpipe.datasets.cvat:CvatSource",
    "imagefolder": "detpipe.datasets.hugging_face:HuggingFaceSource",
    "labelme": "detpipe.datasets.labelme:LabelmeSource",
    "via": "detpipe.datasets.via:ViaSource",
    "tar": "detpipe.datasets.tar:TarSource",
    "parquet": "detpipe.datasets.parquet:ParquetSource",
    "images": "detpipe.datasets.image_list:ImageFolderSource",
    "image_labels": "detpipe.datasets.image_labels:ImageLabelsSource",
    "demo": "detpipe.datasets.demo:DemoSource",
}
FORMATS = PluginTable("dataset", "detpipe.datasets", "detpipe.datasets.source:DatasetSource", _ROWS)
"""Word -> "module:Class". Nothing is imported before a word is chosen."""

AUTO = "auto"
"""The word by which the format is found: `datasets/auto.py`."""


def format_word(kind: type) -> str | None:
    """The word of a class of settings, as `PluginTable.word_of`; None for a class that no other process can import."""
    word = FORMATS.word_of(kind)
    return None if word is None or word.startswith("__main__:") else word
