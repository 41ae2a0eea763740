"""Writes a data set as a VOC folder: Annotations, JPEGImages, and a list for each split in ImageSets/Main."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detpipe.datasets.conversion import Conversion, ConvertedImage, NotCarried, count_common
from detpipe.datasets.voc_xml import VocObject, box_of_corners, file_corners, write_voc_objects
from detpipe.storage.atomic import write_text


def write_voc(conversion: Conversion, out: Path, lost: NotCarried) -> list[tuple[Path, Path]]:
    """Write the folder. Boxes are the same float32 numbers when they are read; those that can't be are counted.

    VOC has no crowds: they are written as difficult, which the metrics ignore as well.
    """
    count_common(conversion, lost)
    used = {one.name for split in conversion.splits for image in split.images for one in image.objects}
    lost.add("classes without objects", out.name, len(conversion.classes) - len(used))
    if list(conversion.classes) != sorted(conversion.classes):
        lost.add("order of the classes (VOC's are in alphabetical order)", ", ".join(conversion.classes[:10]))
    places: dict[Path, Path] = {}
    (out / "Annotations").mkdir(parents=True)
    for split in conversion.splits:
        for image in split.images:
            if split.annotated and image.path not in places:
                _write_image(out / "Annotations" / f"{image.name}.xml", image, lost)
            places[image.path] = out / "JPEGImages" / image.file_name
        (out / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        names = "".join(f"{image.name}\n" for image in split.images)
        write_text(out / "ImageSets" / "Main" / f"{split.split.value}.txt", names)
    return list(places.items())


def _write_image(path: Path, image: ConvertedImage, lost: NotCarried) -> None:
    objects = []
    for one in image.objects:
        corners = file_corners(one.box)
        if corners is None:
            lost.add("boxes that VOC can't express (one pixel or less, or just outside the image)", image.path)
            continue
        read = box_of_corners([float(text) for text in corners.values()])
        if not np.array_equal(np.array(read, dtype=np.float32), np.array(one.box, dtype=np.float32)):
            lost.add("last bits of boxes", image.path)
        lost.add("crowds (written as difficult)", image.path, int(one.crowd))
        objects.append(VocObject(one.name, one.difficult or one.crowd, corners))
    write_voc_objects(path, image.file_name, image.size, objects)
