"""Files of other tools: they are named with the way to a format that is read, and data sets stay as they are read."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets import files_source
from detpipe.datasets.auto import UnknownFormatError, find_reading
from detpipe.datasets.coco import CocoFileError, read_coco_file
from detpipe.datasets.csv_boxes import CsvFileError, CsvSource
from detpipe.datasets.foreign_formats import FOREIGN, MEGADETECTOR, foreign_format, foreign_hint
from detpipe.datasets.source import Split
from tests.datasets import other_formats
from tests.datasets.other_formats import image

FILES: dict[str, tuple[str, Any]] = {
    "VIA's CSV": ("via.csv", "filename,file_size,region_shape_attributes,region_attributes\na.jpg,1,{},{}\n"),
    "CreateML's JSON": (
        "train/_annotations.createml.json",
        [
            {
                "image": "a.jpg",
                "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 2, "width": 3, "height": 4}}],
            }
        ],
    ),
    "Supervisely's JSON": (
        "ds/ann/a.jpg.json",
        {
            "size": {"height": 20, "width": 40},
            "objects": [{"classTitle": "cat", "points": {"exterior": [[1, 2], [3, 4]]}}],
        },
    ),
    "Datumaro's JSON": (
        "annotations/default.json",
        {"categories": {"label": {"labels": [{"name": "cat"}]}}, "items": []},
    ),
    "FiftyOne's own format": ("metadata.json", {"name": "a", "sample_fields": []}),
    "BDD100K's JSON": ("bdd.json", [{"name": "a.jpg", "labels": [{"category": "car", "box2d": {"x1": 1}}]}]),
    "SageMaker Ground Truth's manifest": (
        "output.manifest",
        {"source-ref": "s3://b/a.jpg", "job": {"annotations": []}},
    ),
    "Labelbox's export": ("export.ndjson", {"data_row": {"id": "1", "external_id": "a.jpg"}}),
    "Ultralytics' NDJSON": ("set.ndjson", {"type": "dataset", "task": "detect", "class_names": {"0": "cat"}}),
    "Vertex AI's JSON lines": ("import.jsonl", {"imageGcsUri": "gs://b/a.jpg", "boundingBoxAnnotations": []}),
    "Vertex AI's CSV": ("import.csv", "TRAINING,gs://b/a.jpg,cat,0.1,0.1,,,0.3,0.3,,\n"),
    "MegaDetector's results": ("md.json", {"images": [{"file": "a.jpg", "detections": []}], "info": {}}),
    "SpeciesNet's predictions": ("predictions.json", {"predictions": [{"filepath": "a.jpg", "detections": []}]}),
    "Detectron2's records": (
        "train.json",
        [{"file_name": "a.jpg", "annotations": [{"bbox": [1, 2, 3, 4], "bbox_mode": 0}]}],
    ),
    "text for a vision-language model": ("train.jsonl", {"image": "a.jpg", "suffix": "<loc0123><loc0004> cat"}),
    "Label Studio's CSV": ("p.csv", 'image,id,label,annotator,annotation_id,lead_time\na.jpg,1,"[]",1,1,2\n'),
    "CSV with boxes as x, y, width and height": ("train.csv", 'image_id,width,height,bbox\na,40,20,"[1, 2, 3, 4]"\n'),
    "YOLO Keras text": ("train/_annotations.txt", "a.jpg 1,2,3,4,0 5,6,7,8,1\n"),
    "KITTI's text": (
        "training/label_2/a.txt",
        "Car 0.00 0 -0.20 1.40 2.00 3.73 4.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01\n",
    ),
    "DOTA's text": ("labelTxt/a.txt", "imagesource:GoogleEarth\ngsd:0.14\n1 2 3 2 3 4 1 4 small vehicle 0\n"),
    "text with a class and corners": ("train/Apple/Label/a.txt", "Bell pepper 1.0 2.0 30.0 15.5\n"),
    "VisDrone's text": ("annotations/a.txt", "1,2,3,4,1,4,0,0\n"),
    "MOT's text": ("gt/gt.txt", "1,1,99.39,33.79,114.58,80.2,1,1,1.0\n"),
    "labels of YOLO without their images": ("labels/b.txt", "0 0.5 0.5 0.25 0.5\n"),
    "TensorFlow's records": ("train/cats.tfrecord", "\0"),
}


def write(root: Path, name: str, content: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_every_format_is_here() -> None:
    assert [one.name for one in FOREIGN] == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_named_with_a_way(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, *FILES[name])
    found = foreign_format(path)
    assert found is not None
    assert found.name == name
    for root in (path, tmp_path):
        with pytest.raises(UnknownFormatError) as caught:
            find_reading(root)
        assert name in str(caught.value)
        assert found.way in str(caught.value)
        assert str(path) in str(caught.value)
    # With images, too: nobody would notice that the boxes are not read.
    image(tmp_path / "images" / "a.jpg")
    if name == MEGADETECTOR:
        assert "files that are not read: md.json" in find_reading(tmp_path).why
        return
    with pytest.raises(UnknownFormatError) as caught:
        find_reading(tmp_path)
    assert name in str(caught.value)
    assert "dataset=images" in str(caught.value)


def test_a_makesense_csv(tmp_path: Path) -> None:
    for rows in ("cat,1,2,3,4,a.jpg,40,20\n", "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name\n"):
        found = foreign_format(write(tmp_path, "labels.csv", rows))
        assert found is not None
        assert found.name.startswith("CSV with boxes as x, y")


@pytest.mark.parametrize("word", ["yolo", "csv", "openimages", "labelstudio", "cvat", "labelme"])
def test_what_is_read_is_not_foreign(tmp_path: Path, word: str) -> None:
    from tests.datasets.test_other_formats import WRITERS

    objects = (other_formats.RawObject("cat", (1.0, 2.0, 9.0, 12.0)),)
    WRITERS[word](tmp_path, [(image(tmp_path / "a.jpg"), (20, 40), objects)])
    assert find_reading(tmp_path).word == word
    assert word == "yolo" or not any(foreign_hint(path) for path in tmp_path.iterdir())


def test_other_files_beside_images_are_no_annotations(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path, "readme.txt", "0 photos")
    write(tmp_path, "list.txt", "a.jpg\n")
    write(tmp_path, "exif.json", {"a.jpg": {"camera": "x"}})
    write(tmp_path, "sizes.csv", "name,width,height\na.jpg,40,20\n")
    write(tmp_path, "empty.json", "")
    reading = find_reading(tmp_path)
    assert reading.word == "images"
    assert "1 image without boxes, and files that are not read: empty.json, exif.json, list.txt, ..." in reading.why


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    for root in (tmp_path, write(tmp_path, "export.zip", "PK")):
        with pytest.raises(UnknownFormatError, match=r"export\.zip: .*unpack it"):
            find_reading(root)


def test_a_file_that_is_read_in_a_folder_below_is_named(tmp_path: Path) -> None:
    image(tmp_path / "train" / "data" / "a.jpg")  # as FiftyOne lays out Open Images
    path = write(tmp_path, "train/labels/boxes.csv", "filename,xmin,ymin,xmax,ymax,class\na.jpg,1,2,9,12,cat\n")
    with pytest.raises(UnknownFormatError, match="images without boxes") as caught:
        find_reading(tmp_path)
    assert f"dataset.root={path} dataset.images_root={tmp_path}" in str(caught.value)
    (entry,) = find_reading(path).source({"images_root": str(tmp_path), "test_share": 0.0}).entries(Split.train)
    assert [one.name for one in entry.objects] == ["cat"]


@pytest.mark.parametrize(
    "start",
    [b'"file":' * 500 + b" " * 4500, b'"file":"a",' + b" " * 8000, b'"predictions":[{' * 500, b"annotation_id" * 600],
)
def test_no_start_of_a_file_takes_long(start: bytes) -> None:
    """13 s of CPU time were needed for the first."""
    begun = time.process_time()
    for one in FOREIGN:
        one.signs.search(start)
    assert time.process_time() - begun < 2


def test_of_many_files_the_first_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "a.jpg")
    for number in range(200):
        write(tmp_path, f"{number}.json", {"camera": number})
    opened: list[Path] = []
    own = files_source.open_input
    monkeypatch.setattr(files_source, "open_input", lambda path, expected: opened.append(path) or own(path, expected))
    assert find_reading(tmp_path).word == "images"
    assert set(Counter(opened).values()) <= {2}  # by Label Studio's reader and by VIA's
    assert len(set(opened)) == 100


def test_the_readers_name_it_too(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    with pytest.raises(CocoFileError, match=r"BDD100K's JSON: convert it"):
        read_coco_file(write(tmp_path, *FILES["BDD100K's JSON"]), tmp_path)
    with pytest.raises(CsvFileError, match=r"VIA's CSV"):
        CsvSource(root=str(write(tmp_path, *FILES["VIA's CSV"]))).has(Split.train)
