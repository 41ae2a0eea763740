"""Images with one label each: a list as Caffe's convert_imageset reads it, or a folder a class (`idx`: MNIST's files).

Labels are Caffe's: 0..K-1, no background.
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
    """A list of images or a folder of classes that can't be used."""


@dataclass(frozen=True)
class LabelledImage:
    """name: the path below the root, as the list says it. label: 0..K-1.

    grey: (H, W) pixels of an image that has no file of its own; None where it has.
    """

    name: str
    label: int
    grey: npt.NDArray[np.uint8] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LabelledImages:
    """root: the folder that the names start from. classes: K names in label order, None where nobody named them."""

    root: Path
    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...] | None

    def path(self, image: LabelledImage) -> Path:
        """The file of an image."""
        return self.root / image.name


def read_image_list(file: Path, root: Path, classes: Sequence[str] | None) -> LabelledImages:
    """The images of a list: a path, a blank, a label, and so on. A path may hold blanks: the last one of a line counts.

    A label may stand alone on the line after its path, as Caffe's first readers took it. Empty lines are passed over;
    an empty list gives no images. Raises ImageListError naming the line that is another thing, and FileNotFoundError.
    """
    # A path is bytes: what is no UTF-8 comes through as the file system has it.
    text = os.fsdecode(file.read_bytes())
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    images, place = [], 0
    while place < len(lines):
        number, line = lines[place]
        place += 1
        if not _LINE.fullmatch(line) and place < len(lines) and _LABEL.fullmatch(lines[place][1]):
            line = f"{line} {lines[place][1]}"
            place += 1
        images.append(_parse(line, None if classes is None else len(classes), f"{file}:{number}"))
    return LabelledImages(root, tuple(images), tuple(classes) if classes is not None else None)


def read_class_folders(root: Path) -> LabelledImages:
    """The images of a folder that holds a folder a class: the classes are their names, sorted; images sorted in each.

    Hidden ones are left out. Raises FileNotFoundError where there are no such folders or no images in them.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: expected a folder of classes, there is none")
    # Bytes decide, not the locale: the same on every machine.
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
            f"{root}: expected a folder a class with images ({', '.join(IMAGE_SUFFIXES)}) in it, found "
            f"{len(folders)} folders and no image; give list=FILE for images in one folder"
        )
    return LabelledImages(root, tuple(images), tuple(folder.name for folder in folders))


def read_class_names(file: Path) -> tuple[str, ...]:
    """A name a line, in label order (Caffe's synset_words.txt). Raises ImageListError for an empty or a second one."""
    names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    if not names or not all(names) or len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ImageListError(f"{file}: expected a class name a line, each once, got {len(names)} lines; twice: {twice}")
    return names


def _parse(line: str, n_classes: int | None, where: str) -> LabelledImage:
    found = _LINE.fullmatch(line)
    if found is None or int(found[2]) > MAX_LABEL:
        raise ImageListError(f"{where}: expected a path, a blank and a label of 0 or more, got {line[:200]!r}")
    name, label = found[1], int(found[2])
    if n_classes is not None and label >= n_classes:
        raise ImageListError(f"{where}: expected a label below the number of classes, {n_classes}, got {label}")
    return LabelledImage(name, label)
