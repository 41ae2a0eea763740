"""Detections of many images as a folder of Parquet files: one row for each detection, in parts of some images.

pandas, pyarrow and DuckDB read the folder as one table. The footer of each part has the ids of its images, also of
those without detections, so that a later call continues behind them. `_manifest.json` names the detector, the settings
and the unreadable images; readers of Parquet pass over names that begin with an underscore.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detpipe.storage.atomic import replaced, write_json
from detpipe.storage.dataclass_json import DataclassJsonError, read_dataclass
from detpipe.storage.manifest import ArtefactError
from detpipe.structures import Detections, LeftOut

if TYPE_CHECKING:
    import pyarrow

MANIFEST = "_manifest.json"
_KEY = b"detpipe"


@dataclass(frozen=True, kw_only=True)
class PartsManifest:
    """What the detections were made with, and what came of it.

    settings: those that change the detections. classifier: the digest of its manifest. images: detected in, by all
    calls. unreadable: the images that could not be read when they were last tried.
    """

    settings: dict[str, Any]
    classifier: str
    classes: list[str]
    complete: bool = False
    images: int = 0
    detections: int = 0
    unreadable: list[LeftOut] = field(default_factory=list)


@dataclass(frozen=True)
class ImageRows:
    """The detections of one image. file: its path relative to the source."""

    image_id: str
    file: str
    detections: Detections


class DetectionParts:
    """The folder. It is made when the first part is written.

    done: the ids of all images in its parts. failed: the ids of those that could not be read.
    """

    def __init__(self, folder: Path, manifest: PartsManifest, *, overwrite: bool) -> None:
        """Open the folder to continue, or begin a new one.

        Raises ArtefactError for a folder that detpipe did not make, for one of another detector or other settings
        unless `overwrite`, and for damaged parts; ImportError without pyarrow.
        """
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "out: expected the package pyarrow for Parquet files, got none; pip install 'detpipe[parquet]'"
            ) from error
        self.folder, self.manifest = folder, manifest
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self._next = 0
        self.detections = 0
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            self._open(overwrite=overwrite)
        write_json(folder / MANIFEST, asdict(manifest))

    def _open(self, *, overwrite: bool) -> None:
        path = self.folder / MANIFEST
        if not path.is_file():
            raise ArtefactError(
                f"out: {self.folder} exists and has no {MANIFEST}, so detpipe did not make it; move it away, or give "
                "another name"
            )
        parts = sorted(self.folder.glob("part-*.parquet"))
        if overwrite:
            for part in parts:
                part.unlink()
            return
        try:
            found = read_dataclass(path, PartsManifest)
        except DataclassJsonError as error:
            raise ArtefactError(f"{error}; give overwrite=true to detect again") from error
        for name in ("classifier", "settings", "classes"):
            if getattr(found, name) != getattr(self.manifest, name):
                raise ArtefactError(
                    f"out: {self.folder} was made with another {name.removesuffix('s')}; give overwrite=true to detect "
                    "again, or another name"
                )
        for part in parts:
            self._read_footer(part)

    def _read_footer(self, part: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            metadata = pyarrow.parquet.read_metadata(part)
            footer = json.loads(metadata.metadata[_KEY])
            done, failed, rows = set(footer["images"]), set(footer["unreadable"]), metadata.num_rows
        except (OSError, ValueError, TypeError, KeyError, pyarrow.ArrowException) as error:
            raise ArtefactError(
                f"{part}: expected a part that detpipe wrote, got a damaged one ({error}); delete it and run the "
                "command again"
            ) from error
        self.done |= done
        self.failed = (self.failed | failed) - self.done
        self.detections += rows
        self._next = max(self._next, int(part.stem.removeprefix("part-")) + 1)

    def write(self, images: Sequence[ImageRows], unreadable: Sequence[str]) -> None:
        """Write one part atomically. unreadable: ids of images in its place that can't be read."""
        import pyarrow.parquet

        table = parts_table(images, self.manifest.classes)
        footer = {"images": [one.image_id for one in images], "unreadable": list(unreadable)}
        table = table.replace_schema_metadata({_KEY: json.dumps(footer).encode()})
        with replaced(self.folder / f"part-{self._next:05}.parquet") as scratch:
            pyarrow.parquet.write_table(table, scratch)
        self._next += 1
        self.done.update(one.image_id for one in images)
        self.detections += len(table)

    def finish(self, unreadable: Sequence[LeftOut]) -> None:
        """Write the manifest of complete detections."""
        counts = {"complete": True, "images": len(self.done), "detections": self.detections}
        write_json(
            self.folder / MANIFEST,
            {**asdict(self.manifest), **counts, "unreadable": [asdict(one) for one in unreadable]},
        )


def parts_table(images: Sequence[ImageRows], classes: Sequence[str]) -> pyarrow.Table:
    """A row for each detection, by image and descending score; no images give an empty table.

    Columns: image_id, file and class are text, label is 1..K, score is float32, and x1 y1 x2 y2 are float32 in pixels.
    """
    import numpy as np
    import pyarrow

    found = [one.detections for one in images]
    counts = [len(one) for one in found]
    labels = np.concatenate([np.zeros(0, np.int64), *(one.labels for one in found)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in found)])
    scores = np.concatenate([np.zeros(0, np.float32), *(one.scores for one in found)])

    def repeated(values: list[str]) -> pyarrow.Array:
        indices = np.repeat(np.arange(len(values), dtype=np.int32), counts)
        return pyarrow.array([utf8_text(one) for one in values], pyarrow.string()).take(pyarrow.array(indices))

    return pyarrow.table(
        {
            "image_id": repeated([one.image_id for one in images]),
            "file": repeated([one.file for one in images]),
            "class": pyarrow.array([classes[label - 1] for label in labels.tolist()], pyarrow.string()),
            "label": pyarrow.array(labels.astype(np.int32)),
            "score": pyarrow.array(scores),
            **{name: pyarrow.array(np.ascontiguousarray(boxes[:, side])) for side, name in enumerate(_SIDES)},
        }
    )


_SIDES = ("x1", "y1", "x2", "y2")


def utf8_text(name: str) -> str:
    """A name with bytes that are not UTF-8, which Python keeps as lone surrogates, as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode()
