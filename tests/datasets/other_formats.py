"""Writers of the formats that people's tools write, for the tests of their readers: each takes a loaded data set."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detpipe.datasets.entry import RawObject
from detpipe.datasets.yolo_text import yolo_line


def image(path: Path, seed: int = 0) -> Path:
    """An image, 20 high and 40 wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (20, 40, 3), dtype=np.uint8))
    return path


Row = tuple[Path, tuple[int, int], Sequence[RawObject]]
"""An image's file, its (height, width), and its objects."""


def link_images(folder: Path, rows: Sequence[Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path, _, _ in rows:
        (folder / path.name).hardlink_to(path.resolve())


def write_yolo(folder: Path, rows: Sequence[Row]) -> None:
    classes = sorted({one.name for _, _, objects in rows for one in objects})
    for path, size, objects in rows:
        lines = [yolo_line(classes.index(one.name), one.box, size) for one in objects]
        (folder / f"{path.stem}.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "data.yaml").write_text(f"train: .\nnames: {json.dumps(classes)}\n")


def write_csv(folder: Path, rows: Sequence[Row]) -> None:
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
        for path, (height, width), objects in rows:
            for one in objects:
                writer.writerow([path.name, width, height, one.name, *map(repr, one.box)])
            if not objects:
                writer.writerow([path.name, width, height, "", "", "", "", ""])


def write_open_images(folder: Path, rows: Sequence[Row]) -> None:
    classes = sorted({one.name for _, _, objects in rows for one in objects})
    codes = {name: f"/m/{number:04}" for number, name in enumerate(classes)}
    with (folder / "annotations-bbox.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
        writer.writerow(columns.split(","))
        for path, (height, width), objects in rows:
            for one in objects:
                x1, y1, x2, y2 = one.box
                shares = [x1 / width, x2 / width, y1 / height, y2 / height]
                writer.writerow([path.stem, "xclick", codes[one.name], 1, *map(repr, shares), 0, 0, int(one.crowd)])
    with (folder / "class-descriptions-boxable.csv").open("w", newline="") as file:
        csv.writer(file).writerows([code, name] for name, code in codes.items())


def region(one: RawObject, size: tuple[int, int], **more: Any) -> dict[str, Any]:
    height, width = size
    x1, y1, x2, y2 = one.box
    value = {
        "x": 100 * x1 / width,
        "y": 100 * y1 / height,
        "width": 100 * (x2 - x1) / width,
        "height": 100 * (y2 - y1) / height,
    }
    return {
        "id": "r1",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, "rotation": 0, "rectanglelabels": [one.name]},
        **more,
    }


def write_label_studio(folder: Path, rows: Sequence[Row]) -> None:
    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/upload/3/0123abcd-{path.name}"},
            "annotations": [{"result": [region(one, size) for one in objects], "was_cancelled": False}],
        }
        for number, (path, size, objects) in enumerate(rows)
    ]
    (folder / "export.json").write_text(json.dumps(tasks))


def write_cvat(folder: Path, rows: Sequence[Row]) -> None:
    root = ElementTree.Element("annotations")
    for number, (path, (height, width), objects) in enumerate(rows):
        element = ElementTree.SubElement(
            root, "image", {"id": str(number), "name": path.name, "width": str(width), "height": str(height)}
        )
        for one in objects:
            corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(repr, one.box), strict=True))
            ElementTree.SubElement(element, "box", {"label": one.name, "occluded": "1", **corners})
    (folder / "annotations.xml").write_bytes(ElementTree.tostring(root))


def write_labelme(folder: Path, rows: Sequence[Row]) -> None:
    for path, (height, width), objects in rows:
        shapes = [
            {
                "label": one.name,
                "points": [[one.box[2], one.box[1]], [one.box[0], one.box[3]]],
                "shape_type": "rectangle",
            }
            for one in objects
        ]
        content = {
            "version": "5.0.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": path.name,
            "imageHeight": height,
            "imageWidth": width,
        }
        (folder / f"{path.stem}.json").write_text(json.dumps(content))


def rows_of(entries: Sequence[Any], sizes: dict[Any, tuple[int, int]]) -> Iterator[Row]:
    for entry in entries:
        if entry.image_id in sizes:
            yield entry.image, sizes[entry.image_id], entry.objects
