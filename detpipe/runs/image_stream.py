"""The image files that a folder or a pattern names, and the detections in them as a stream."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path

from detpipe.datasets.folder_scan import is_image, scan_images
from detpipe.report.image_detections import ImageDetections
from detpipe.storage.stored_file import is_folder
from detpipe.structures import LeftOut

logger = logging.getLogger(__name__)


class ImageStream:
    """The detections in many images. Each iteration detects again, and keeps no results.

    paths: the image files in order. left_out: the unreadable ones of the last iteration, as far as it got.
    """

    def __init__(
        self, paths: tuple[Path, ...], detections: Callable[[list[LeftOut]], Iterator[ImageDetections]]
    ) -> None:
        """detections: makes the detections of the readable images in order, and adds the others to the list."""
        self.paths = paths
        self.left_out: list[LeftOut] = []
        self._detections = detections

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[ImageDetections]:
        left_out: list[LeftOut] = []
        self.left_out = left_out
        yield from self._detections(left_out)
        if left_out:
            logger.warning("left out %d of %d images, because they can't be read", len(left_out), len(self.paths))

    def __repr__(self) -> str:
        return f"ImageStream({len(self)} images; iterate over it)"


def is_many(path: str | PathLike[str]) -> bool:
    """Whether a path is a folder, a tar, or a pattern: it has one of * ? [ and is not the name of a file."""
    return is_folder(Path(path)) or (glob.has_magic(fspath(path)) and not Path(path).exists())


def image_paths(images: str | PathLike[str] | Iterable[str | PathLike[str]]) -> tuple[Path, ...]:
    """The image files of a folder with its subfolders, of a tar, of a pattern, or the given paths in order.

    In folders and patterns, hidden files and files without the suffix of an image are not counted, and the result is
    sorted. Raises ValueError that names the argument `images` if there are none, and for a path to nothing.
    """
    if not isinstance(images, (str, PathLike)):
        return tuple(map(Path, images))
    where = Path(images)
    if is_folder(where):
        files = scan_images(where, outside=True)
        if not files.images:
            passed_over = files.passed_over_text() or "correct the path"
            raise ValueError(f"images: expected a folder with images, got {where} with none; {passed_over}")
        return tuple(files.images)
    if where.exists():
        return (where,)
    # pathlib takes no absolute patterns.
    names = glob.glob(fspath(images), recursive=True)  # noqa: PTH207
    found = sorted(Path(name) for name in names if is_image(name))
    if not found:
        raise ValueError(f"images: expected a folder, a file or a pattern that finds images, got {where}; correct it")
    return tuple(path for path in found if path.is_file())
