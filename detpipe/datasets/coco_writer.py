"""Writes a data set as COCO files: annotations/instances_SPLIT.json, and the images in SPLIT/."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detpipe.datasets.conversion import Conversion, ConvertedSplit, NotCarried
from detpipe.datasets.entry import RawObject
from detpipe.storage.atomic import replaced
from detpipe.structures import ImageId


def write_coco(conversion: Conversion, out: Path, lost: NotCarried) -> list[tuple[Path, Path]]:
    """Write the files. Numbers of bbox are a COCO source's own, or give the same corners when they are read.

    Ids of images and objects are kept where all of a file are different whole numbers; else they count from 1.
    """
    places = []
    first = 1
    for split in conversion.splits:
        ids = whole_ids([image.image_id for image in split.images]) or list(range(first, first + len(split.images)))
        first += len(split.images)
        rows: dict[str, Iterator[dict[str, Any]]] = {
            "images": _images(split, ids),
            "categories": (
                {"id": number, "name": name}
                for number, name in zip(split.category_ids, conversion.classes, strict=True)
            ),
        }
        if split.annotated:
            rows["annotations"] = _annotations(split, ids, conversion.classes, lost)
        _write(out / "annotations" / f"instances_{split.split.value}.json", conversion.title, rows)
        places += [(image.path, out / split.split.value / image.file_name) for image in split.images]
    return places


def _write(path: Path, title: str, rows: dict[str, Iterator[dict[str, Any]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        info = {"info": {"description": f"{title}, converted by detpipe"}}
        file.write(json.dumps(info).removesuffix("}"))
        for name, some in rows.items():
            file.write(f',\n"{name}": [')
            file.writelines(f"{',' if n else ''}\n{json.dumps(row, allow_nan=False)}" for n, row in enumerate(some))
            file.write("\n]")
        file.write("\n}\n")


def _images(split: ConvertedSplit, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    for image, number in zip(split.images, ids, strict=True):
        height, width = image.size
        yield {"id": number, "file_name": image.file_name, "height": height, "width": width}


def _annotations(
    split: ConvertedSplit, ids: Sequence[int], classes: Sequence[str], lost: NotCarried
) -> Iterator[dict[str, Any]]:
    category_ids = dict(zip(classes, split.category_ids, strict=True))
    texts = [one.id or "" for image in split.images for one in image.objects]
    own = whole_ids([int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else text for text in texts])
    numbers = iter(own or range(1, len(texts) + 1))
    for image, image_id in zip(split.images, ids, strict=True):
        for one in image.objects:
            xywh = _xywh(one)
            if one.written is None and (xywh[0] + xywh[2], xywh[1] + xywh[3]) != one.box[2:]:
                lost.add("last bits of boxes", image.path)
            lost.add("difficult flags", image.path, int(one.difficult))
            yield {
                "id": next(numbers),
                "image_id": image_id,
                "category_id": category_ids[one.name],
                "bbox": [_plain(value) for value in xywh],
                "area": _plain(xywh[2] * xywh[3] if one.area is None else one.area),
                "iscrowd": int(one.crowd),
                "segmentation": [],
            }


def whole_ids(ids: Sequence[ImageId]) -> list[int] | None:
    """The ids if all are different whole numbers from 0; else None."""
    numbers = [one for one in ids if isinstance(one, int) and one >= 0]
    return numbers if len(set(numbers)) == len(ids) else None


def _xywh(one: RawObject) -> tuple[float, float, float, float]:
    if one.written is not None:
        return one.written
    x1, y1, x2, y2 = one.box
    return x1, y1, extent(x1, x2), extent(y1, y2)


def extent(start: float, end: float) -> float:
    """The length that gives `end` when it is added to `start`, in float64; the nearest one if none does."""
    length = end - start
    near = (length, math.nextafter(length, math.inf), math.nextafter(length, -math.inf))
    return next((one for one in near if start + one == end), length)


def _plain(value: float) -> float | int:
    """A whole number as an integer, as COCO's own files have them."""
    return int(value) if float(value).is_integer() else value
