"""Writes a data set as YOLO's folders: data.yaml, images/SPLIT and labels/SPLIT.

A line of a label file is "class cx cy width height", in shares of the image's width and height; classes count from 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from detpipe.datasets.conversion import Conversion, ConvertedImage, NotCarried, count_common
from detpipe.datasets.source import Split
from detpipe.datasets.yolo_text import yolo_line
from detpipe.storage.atomic import write_text

Box = Sequence[float]


def write_yolo(conversion: Conversion, out: Path, lost: NotCarried) -> list[tuple[Path, Path]]:
    """Write the folders. Numbers have all digits of float64, so that boxes are the same float32 numbers when read.

    Boxes are clipped to the image: trainers refuse shares outside 0..1. Crowds are left out: a trainer would take one
    for a single object.
    """
    count_common(conversion, lost)
    numbers = {name: number for number, name in enumerate(conversion.classes)}
    places = []
    for split in conversion.splits:
        labels = out / "labels" / split.split.value
        labels.mkdir(parents=True)
        for image in split.images:
            if split.annotated:
                write_text(labels / f"{image.name}.txt", "".join(_lines(image, numbers, lost)))
            places.append((image.path, out / "images" / split.split.value / image.file_name))
    write_text(out / "data.yaml", _yaml(conversion))
    return places


def _yaml(conversion: Conversion) -> str:
    there = [split.split for split in conversion.splits]
    lines = [f"{split.value}: images/{split.value}" for split in there]
    if Split.val not in there and Split.test in there:
        lines += ["# A trainer that needs `val` can measure on the test images:", "# val: images/test"]
    # A JSON string is a YAML string, whatever is in it.
    lines += [
        "names:",
        *(f"  {n}: {json.dumps(name, ensure_ascii=False)}" for n, name in enumerate(conversion.classes)),
    ]
    return "\n".join(lines) + "\n"


def _lines(image: ConvertedImage, numbers: dict[str, int], lost: NotCarried) -> list[str]:
    lines = []
    height, width = image.size
    for one in image.objects:
        if one.crowd:
            lost.add("crowds (left out)", image.path)
            continue
        lost.add("difficult flags", image.path, int(one.difficult))
        x1, x2 = (min(max(value, 0.0), width) for value in one.box[0::2])
        y1, y2 = (min(max(value, 0.0), height) for value in one.box[1::2])
        x2, y2 = max(x1, x2), max(y1, y2)
        if (x1, y1, x2, y2) != one.box:
            lost.add("parts of boxes outside the image", image.path)
        lines.append(yolo_line(numbers[one.name], (x1, y1, x2, y2), image.size) + "\n")
    return lines
