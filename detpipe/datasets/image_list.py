"""Source of images without annotations: a folder or a single file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.image_file import IMAGE_SUFFIXES
from detpipe.datasets.source import DatasetSource, Entry, Split


@dataclass(kw_only=True)
class ImageFolderSource(DatasetSource):
    """The images in a folder and its subfolders (except hidden ones), or a single file, as the test split.

    An image's id is its file name without suffix. If two images would share an id, all ids are paths relative to the
    folder, without suffix if these are unique, else with it.
    """

    root: str
    """Folder of images, or one image file."""

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
            raise FileNotFoundError(f"{root}: expected an image or a folder of images, got no such file or folder")
        files = sorted(
            path
            for path in root.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
            and path.is_file()
        )
        if not files:
            raise FileNotFoundError(f"{root}: expected images ({', '.join(IMAGE_SUFFIXES)}) in the folder, got none")
        if split is not Split.test:
            return []
        ids = _shortest_ids([path.relative_to(root) for path in files])
        return [Entry(image_id, path, root) for image_id, path in zip(ids, files, strict=True)]


def _shortest_ids(paths: Sequence[Path]) -> list[str]:
    """The stems of the paths, the paths without suffix, or the whole paths: the first of these that is unique."""
    stems = [path.stem for path in paths]
    bare = [path.with_suffix("").as_posix() for path in paths]
    for names in (stems, bare):
        if max(Counter(names).values(), default=0) <= 1:
            return names
    return [path.as_posix() for path in paths]
