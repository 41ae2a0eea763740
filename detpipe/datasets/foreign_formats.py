"""Formats of other tools that are not read, and the nearest way to one that is: for messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.folder_scan import is_hidden, suffix_of
from detpipe.storage.input_file import open_input
from detpipe.storage.stored_file import walk

_START = 1 << 13
_DEEPEST, _MOST_NAMES, _MOST_READ, _MOST_FILES = 3, 20_000, 5, 100
"""Folders below the root, names in all of them, files of each suffix in one folder, and files that are looked at."""


@dataclass(frozen=True)
class ForeignFormat:
    """name: with its tool. way: how to get a format that is read, as an advice. signs: in the first bytes of a file."""

    name: str
    way: str
    suffixes: tuple[str, ...]
    signs: re.Pattern[bytes]


_JSON = (".json", ".jsonl", ".ndjson", ".manifest")
_ROBOFLOW = "choose COCO JSON, YOLOv8 or Pascal VOC in Roboflow's export"
_FIFTYONE = (
    "convert it with FiftyOne: fiftyone convert --input-dir DIR --input-type fiftyone.types.KITTIDetectionDataset "
    "--output-dir OUT --output-type fiftyone.types.COCODetectionDataset"
)
_CSV = "write a CSV with filename,xmin,ymin,xmax,ymax,class in pixels"
MEGADETECTOR = "MegaDetector's results"
"""Photos with such a file alone are photos: proposals of their own, or of the file, are made on them."""
_ROWS = (
    ("VIA's CSV", "export JSON in VIA (Annotation, Export Annotations)", (".csv",), rb"region_shape_attributes"),
    ("CreateML's JSON", _ROBOFLOW, _JSON, rb'"coordinates"\s*:\s*\{'),
    (
        "Supervisely's JSON",
        "export COCO or Pascal VOC with Supervisely's apps",
        _JSON,
        rb'"classTitle"|"projectType"',
    ),
    ("Datumaro's JSON", "export COCO from Datumaro or CVAT", _JSON, rb'"dm_format_version"|"categories"\s*:\s*\{'),
    (
        "FiftyOne's own format",
        "export it from FiftyOne as fiftyone.types.COCODetectionDataset",
        _JSON,
        rb'"sample_fields"|"_cls"\s*:\s*"Detections"',
    ),
    ("BDD100K's JSON", "convert it to COCO with bdd100k.label.to_coco", _JSON, rb'"box2d"\s*:'),
    ("SageMaker Ground Truth's manifest", _CSV, _JSON, rb'"source-ref"\s*:'),
    ("Labelbox's export", _CSV, _JSON, rb'"data_row"\s*:'),
    (
        "Ultralytics' NDJSON",
        "convert it with ultralytics.data.converter.convert_ndjson_to_yolo",
        _JSON,
        rb'"type"\s*:\s*"dataset"',
    ),
    ("Vertex AI's JSON lines", _CSV, _JSON, rb'"boundingBoxAnnotations"|"imageGcsUri"'),
    ("Vertex AI's CSV", _CSV, (".csv",), rb"\A([A-Z]*,)?gs://"),
    (
        MEGADETECTOR,
        "give a table with a class for each image: dataset=image_labels dataset.labels=F.csv dataset.detections=F.json",
        _JSON,
        rb'"detection_categories"|"max_detection_conf"|"file"\s*:\s*"[^"\n]*"\s*,\s*"detections"\s*:',
    ),
    (
        "SpeciesNet's predictions",
        "convert them to MegaDetector's format with megadetector.data_management.speciesnet_to_md",
        _JSON,
        rb'"predictions"\s*:\s*\[\s*\{[^{]*"filepath"',
    ),
    (
        "Detectron2's records",
        "write COCO with detectron2.data.datasets.convert_to_coco_json",
        _JSON,
        rb'"bbox_mode"\s*:',
    ),
    ("text for a vision-language model", _ROBOFLOW, _JSON, rb"<loc_?[0-9]{1,4}>"),
    (
        "Label Studio's CSV",
        "choose JSON in Label Studio's export",
        (".csv", ".tsv"),
        rb"annotation_id.*\blead_time|rectanglelabels",
    ),
    (
        "CSV with boxes as x, y, width and height",
        _CSV,
        (".csv", ".tsv"),
        rb"(?i)\A[^\n]*\b(bbox|bbox_width|box_w)\b|\A[^,\n]+(,-?[\d.]+){4},[^,\n]+\.(jpe?g|png),\d+,\d+\s",
    ),
    ("YOLO Keras text", _ROBOFLOW, (".txt",), rb"\A\S+\.(jpe?g|png)( \d+,\d+,\d+,\d+,\d+)+\s"),
    (
        "KITTI's text",
        _FIFTYONE,
        (".txt",),
        rb"\A[A-Za-z]\S* -?[\d.]+ -?\d+( -?[\d.]+){12}\s",
    ),
    (
        "DOTA's text",
        "convert it with ultralytics.data.converter.convert_dota_to_yolo_obb",
        (".txt",),
        rb"\A(imagesource:.*\n)?(gsd:.*\n)?(-?[\d.]+ ){8}\S[^\n]{0,100} [0-2]\s",
    ),
    ("text with a class and corners", _CSV, (".txt",), rb"\A[A-Za-z][^\n,]*( -?[\d.]+){4}\s"),
    ("VisDrone's text", "convert it as Ultralytics' VisDrone.yaml does", (".txt",), rb"\A(-?\d+,){7}-?\d+,?\s"),
    ("MOT's text", _CSV, (".txt",), rb"\A\d+,-?\d+(,-?[\d.]+){7,8}\s"),
    (
        "labels of YOLO without their images",
        "put the images beside them, or into images/ beside labels/ (in Label Studio choose YOLO with Images, in CVAT "
        "save images)",
        (".txt",),
        rb"\A\d+( [\d.]+){4}\s",
    ),
    ("TensorFlow's records", f"{_ROBOFLOW}, or COCO of the tool that made them", (".tfrecord", ".record"), rb""),
)
FOREIGN = tuple(ForeignFormat(name, way, suffixes, re.compile(signs)) for name, way, suffixes, signs in _ROWS)
_SUFFIXES = frozenset((".xml", ".tsv", *(suffix for one in FOREIGN for suffix in one.suffixes)))


def foreign_format(path: Path) -> ForeignFormat | None:
    """The format of a file, as its first bytes show; None for any other file. No name is read but its suffix."""
    suffix = suffix_of(path.name)
    if suffix not in _SUFFIXES:
        return None
    try:
        with open_input(path, "a file of annotations") as file:
            start = file.read(_START)
    except (OSError, ValueError):
        return None
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip() + b"\n"
    return next((one for one in FOREIGN if suffix in one.suffixes and one.signs.search(start)), None)


def foreign_hint(path: Path) -> str:
    """The end of an error about a file that is in one of the formats: what it is, and the way; "" for another file."""
    found = foreign_format(path)
    return "" if found is None else f"; it looks like {found.name}: {found.way}"


def few_files(root: Path) -> Iterator[Path]:
    """The first files with the suffixes of annotations in a folder, and in few folders below."""
    n_names = n_files = 0
    for folder, inner, names in walk(root):
        depth = len(folder.relative_to(root).parts)
        inner[:] = [] if depth == _DEEPEST else sorted(name for name in inner if not is_hidden(name))
        n_names += len(names)
        counts: Counter[str] = Counter()
        for name in sorted(names):
            suffix = suffix_of(name)
            if suffix in _SUFFIXES and not is_hidden(name) and counts[suffix] < _MOST_READ:
                counts[suffix] += 1
                n_files += 1
                yield folder / name
        if n_names > _MOST_NAMES or n_files > _MOST_FILES:
            return
