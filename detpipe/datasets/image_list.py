"""A folder of images, or one image, without annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.image_file import IMAGE_SUFFIXES
from detpipe.datasets.source import DatasetSource, Entry, Split


@dataclass(kw_only=True)
class ImageFolderSource(DatasetSource):
    """All images in a folder and its subfolders (hidden ones left out), or a single file; they are the test split.

    An image's id is its stem; where two stems are the same, all ids are paths in the folder, without the suffix where
    that tells them apart.
    """

    root: str
    """The folder, or one image file."""

    def has(self, split: Split) -> bool:
        return split is Split.test

    def title(self, split: Split) -> str:  # noqa: ARG002
        return Path(self.root).name or self.root

    def annotated(self, split: Split) -> bool:  # noqa: ARG002
        return False

    def known_classes(self) -> list[str]:
        return list(self.classes or ())

    def entries(self, split: Split) -> list[Entry]:
        root = Path(self.root)
        if root.is_file():
            return [Entry(root.stem, root, root)] if split is Split.test else []
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: expected an image or a folder of images, there is neither")
        files = sorted(
            path
            for path in root.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
            and path.is_file()
        )
        if not files:
            raise FileNotFoundError(f"{root}: expected images ({', '.join(IMAGE_SUFFIXES)}) in it, there are none")
        if split is not Split.test:
            return []
        ids = _shortest_ids([path.relative_to(root) for path in files])
        return [Entry(image_id, path, root) for image_id, path in zip(ids, files, strict=True)]


def _shortest_ids(paths: Sequence[Path]) -> list[str]:
    """The stems of the paths, or the paths without suffix, or whole: the first that tells all apart."""
    stems = [path.stem for path in paths]
    bare = [path.with_suffix("").as_posix() for path in paths]
    for names in (stems, bare):
        if max(Counter(names).values(), default=0) <= 1:
            return names
    return [path.as_posix() for path in paths]
