"""Readers of images with one label each: a list as for Caffe's convert_imageset, or a folder per class.

Labels are 0..K-1 as in Caffe, without background. `idx` reads MNIST's files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.datasets.image_file import IMAGE_SUFFIXES

_LINE = re.compile(r"(\S.*?)[ \t]+([0-9]{1,10})")
_LABEL = re.compile(r"[0-9]{1,10}")

MAX_LABEL = 2**31 - 1
"""A Datum's label is an int32."""


class ImageListError(ValueError):
    """A list of images or a folder of classes can't be used."""


@dataclass(frozen=True)
class LabelledImage:
    """One image. name: its path relative to the root, as in the list. label: 0..K-1.

    grey: (H, W) uint8 pixels of an image that has no file of its own; None for an image file.
    """

    name: str
    label: int
    grey: npt.NDArray[np.uint8] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LabelledImages:
    """A set of images. root: the folder that names are relative to. classes: K names in label order, or None."""

    root: Path
    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...] | None

    def path(self, image: LabelledImage) -> Path:
        """The path of an image's file."""
        return self.root / image.name


def read_image_list(file: Path, root: Path, classes: Sequence[str] | None) -> LabelledImages:
    """Read a list with one image per line: path, space, label. The path may contain spaces; the last one separates.

    A label may also be alone on the line after its path, as Caffe's first readers accepted. Empty lines are ignored; an
    empty list gives no images. Raises FileNotFoundError, and ImageListError, which names the line, for any other line.
    """
    # Paths are bytes: fsdecode keeps those that are not UTF-8.
    text = os.fsdecode(file.read_bytes())
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    images, index = [], 0
    while index < len(lines):
        number, line = lines[index]
        index += 1
        if not _LINE.fullmatch(line) and index < len(lines) and _LABEL.fullmatch(lines[index][1]):
            line = f"{line} {lines[index][1]}"
            index += 1
        images.append(_parse(line, None if classes is None else len(classes), f"{file}:{number}"))
    return LabelledImages(root, tuple(images), tuple(classes) if classes is not None else None)


def read_class_folders(root: Path) -> LabelledImages:
    """Read a folder that has one subfolder per class. Classes are the sorted folder names; images are sorted in each.

    Hidden files and folders are ignored. Raises FileNotFoundError if there are no such folders or no images in them.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: expected a folder of classes, got no such folder")
    # Sorted by code points, not by locale: the same order on every machine.
    folders = sorted(
        (path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")), key=lambda p: p.name
    )
    images = [
        LabelledImage(path.relative_to(root).as_posix(), label)
        for label, folder in enumerate(folders)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]
    if not images:
        raise FileNotFoundError(
            f"{root}: expected a folder for each class with images ({', '.join(IMAGE_SUFFIXES)}), got "
            f"{len(folders)} folders and no image; give list=FILE if all images are in one folder"
        )
    return LabelledImages(root, tuple(images), tuple(folder.name for folder in folders))


def read_class_names(file: Path) -> tuple[str, ...]:
    """Read class names, one per line in label order (as Caffe's synset_words.txt).

    Raises ImageListError for an empty or repeated name.
    """
    names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    if not names or not all(names) or len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ImageListError(
            f"{file}: expected one class name per line, each once, got {len(names)} lines; repeated: {repeated}"
        )
    return names


def _parse(line: str, n_classes: int | None, where: str) -> LabelledImage:
    found = _LINE.fullmatch(line)
    if found is None or int(found[2]) > MAX_LABEL:
        raise ImageListError(f"{where}: expected a path, a space and a label of 0 or more, got {line[:200]!r}")
    name, label = found[1], int(found[2])
    if n_classes is not None and label >= n_classes:
        raise ImageListError(f"{where}: expected a label below the number of classes, {n_classes}, got {label}")
    return LabelledImage(name, label)
