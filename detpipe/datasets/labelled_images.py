"""Readers of images with one label each: a list as for Caffe's convert_imageset, or a folder per class.

Labels are 0..K-1 as in Caffe, without background. `idx` reads MNIST's files.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.datasets.folder_scan import is_hidden, is_inside, real_folders, scan
from detpipe.datasets.image_file import IMAGE_SUFFIXES
from detpipe.datasets.image_finder import ImageFinder, ImageNotFoundError
from detpipe.datasets.text_file import marked_encoding, read_text
from detpipe.datasets.voc_folder import SPLIT_FOLDERS
from detpipe.storage.input_file import read_input
from detpipe.storage.stored_file import children, is_existing_folder

logger = logging.getLogger(__name__)

_LINE = re.compile(r"(\S.*?)[ \t]+([0-9]{1,10})")
_LABEL = re.compile(r"[0-9]{1,10}")

MAX_LABEL = 2**31 - 1
"""A Datum's label is an int32."""
LARGEST_LIST = 1 << 30
"""Bytes of the largest list of images that is read: about 20 million lines."""
_MOST_WITH_GAPS = 1000
"""Labels up to this number may have any gaps, as with some of ImageNet's classes."""


class ImageListError(ValueError):
    """A list of images or a folder of classes can't be used."""


@dataclass(frozen=True)
class LabelledImage:
    """One image. name: its path relative to the root, as in the list. label: 0..K-1.

    grey: (H, W) uint8 pixels of an image that has no file of its own; None for an image file. file: its path, if it is
    another than root / name. fault: why there is no file, if this is known.
    """

    name: str
    label: int
    grey: npt.NDArray[np.uint8] | None = field(default=None, compare=False)
    file: Path | None = field(default=None, compare=False)
    fault: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LabelledImages:
    """A set of images. root: the folder that names are relative to. classes: K names in label order, or None."""

    root: Path
    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...] | None

    def path(self, image: LabelledImage) -> Path:
        """The path of an image's file."""
        return image.file or self.root / image.name


def label_gaps(labels: Collection[int]) -> str:
    """A sentence if labels are ids in place of numbers from 0: few labels up to a large number; "" otherwise.

    labels: of all images; none give "".
    """
    known = set(labels)
    highest = max(known, default=0)
    if highest < _MOST_WITH_GAPS or highest < 10 * len(known):
        return ""
    return f"{len(known):,} labels up to {highest:,}: number them from 0"


def read_image_list(file: Path, root: Path, classes: Sequence[str] | None, *, outside: bool = False) -> LabelledImages:
    """Read a list with one image per line: path, space, label. The path may contain spaces; the last one separates.

    A label may also be alone on the line after its path, as Caffe's first readers accepted. Empty lines are ignored;
    lines that are all empty give no images. Paths are found by the rule of `ImageFinder`, also outside of the root if
    `outside` is set; an image without a file has a fault. Raises FileNotFoundError, and ImageListError, which names the
    line, for any other line.
    """
    text = _decoded(read_input(file, "a list of images", LARGEST_LIST))
    if not is_existing_folder(root):
        raise FileNotFoundError(f"{root}: expected the folder of the images in {file}, got no such folder; set root")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    finder = ImageFinder(root, beside=file.parent, outside=outside, setting="outside")
    images, index = [], 0
    while index < len(lines):
        number, line = lines[index]
        index += 1
        if not _LINE.fullmatch(line) and index < len(lines) and _LABEL.fullmatch(lines[index][1]):
            line = f"{line} {lines[index][1]}"
            index += 1
        images.append(_parse(line, None if classes is None else len(classes), f"{file}:{number}", finder))
    return LabelledImages(root, tuple(images), tuple(classes) if classes is not None else None)


def _decoded(data: bytes) -> str:
    """The text of a list, by its byte-order mark. Without one, paths are bytes: fsdecode keeps those not in UTF-8."""
    encoding = marked_encoding(data)
    # A label in UTF-16 has zero bytes; without them, a name only begins as such a mark does.
    if encoding is None or encoding == "utf-8" or b"\0" not in data:
        return os.fsdecode(data.removeprefix(b"\xef\xbb\xbf"))
    return data.decode(encoding, "replace").removeprefix("\ufeff")


def read_class_folders(root: Path, *, outside: bool = False) -> LabelledImages:
    """Read a folder that has one subfolder per class. Classes are the sorted folder names; images are sorted in each.

    Hidden files and folders are ignored. outside: links that leave the root are followed. Logs pictures that are passed
    over. Raises FileNotFoundError if there are no such folders or no images in them, and ImageListError if the folders
    are splits in place of classes.
    """
    if not is_existing_folder(root):
        raise FileNotFoundError(f"{root}: expected a folder of classes, got no such folder")
    real = real_folders([root])
    # Sorted by code points, not by locale: the same order on every machine.
    folders = [path for path in children(root) if is_existing_folder(path) and not is_hidden(path.name)]
    left = [path for path in folders if not outside and not is_inside(path, real)]
    if left:
        logger.warning(
            "%s: passed over %d folders that are links and leave it (%s); give outside=true to follow them",
            root,
            len(left),
            ", ".join(path.name for path in left[:3]),
        )
    folders = [path for path in folders if path not in left]
    images, passed_over = [], []
    for label, folder in enumerate(folders):
        found = scan(folder, outside=outside, real=real)
        images += [LabelledImage(path.relative_to(root).as_posix(), label) for path in found.images]
        if text := found.passed_over_text("outside"):
            passed_over.append(f"{folder.name}: {text}")
    for text in passed_over[:5]:
        logger.warning("%s/%s", root, text)
    if not images:
        raise FileNotFoundError(
            f"{root}: expected a folder for each class with images ({', '.join(IMAGE_SUFFIXES[:8])}, ...), got "
            f"{len(folders)} folders and no image; give list=FILE if all images are in one folder"
            + (f" ({passed_over[0]})" if passed_over else "")
        )
    _report_splits(root, folders)
    return LabelledImages(root, tuple(images), tuple(folder.name for folder in folders))


def _report_splits(root: Path, folders: Sequence[Path]) -> None:
    """Raise ImageListError if all folders have names of splits and hold folders; warn if some have such names."""
    named = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    names = ", ".join(folder.name for folder in named)
    remedy = f"make a database of each, as with root={named[0]}" if named else ""
    if len(named) > 1 and len(named) == len(folders) and _has_folder(named[0]):
        raise ImageListError(f"{root}: expected a folder for each class, got folders of splits ({names}); {remedy}")
    if len(named) > 1:
        logger.warning("%s: the folders %s are taken for classes; if they are splits, %s", root, names, remedy)


def _has_folder(folder: Path) -> bool:
    return any(is_existing_folder(path) and not is_hidden(path.name) for path in children(folder))


def read_class_names(file: Path) -> tuple[str, ...]:
    """Read class names, one per line in label order (as Caffe's synset_words.txt).

    Raises ImageListError for an empty or repeated name, and for other bytes than UTF-8; and as `read_input`.
    """
    names = tuple(line.strip() for line in read_text(file, "class names, one per line").splitlines())
    if not names or not all(names) or len(set(names)) != len(names):
        repeated = sorted(name for name, times in Counter(names).items() if times > 1)[:5]
        raise ImageListError(
            f"{file}: expected one class name per line, each once, got {len(names)} lines; repeated: {repeated}"
        )
    return names


def _parse(line: str, n_classes: int | None, where: str, finder: ImageFinder) -> LabelledImage:
    found = _LINE.fullmatch(line)
    if found is None or int(found[2]) > MAX_LABEL:
        raise ImageListError(f"{where}: expected a path, a space and a label of 0 or more, got {line[:200]!r}")
    name, label = found[1], int(found[2])
    if n_classes is not None and label >= n_classes:
        raise ImageListError(f"{where}: expected a label below the number of classes, {n_classes}, got {label}")
    try:
        return LabelledImage(name, label, file=finder.find(name))
    except ImageNotFoundError as error:
        return LabelledImage(name, label, fault=f"{where}: {error}")
