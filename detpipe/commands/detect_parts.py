"""`detpipe detect source=... out=DIR.parquet`: detections of many images as parts of a Parquet folder.

Only the detections of one part are in memory. A part is written when its images are done, and a later call continues
with the images that no part has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from detpipe.classify.detect import of_readable
from detpipe.commands.stage_settings import Detect
from detpipe.console import RESULT
from detpipe.datasets.image_file import BrokenImageError
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.source import Entry, Split
from detpipe.progress import progress
from detpipe.proposals.proposer import Proposer
from detpipe.runs.detector import Detector
from detpipe.runs.parquet_results import DetectionParts, ImageRows, PartsManifest
from detpipe.runs.source_folder import source_root
from detpipe.storage.interrupt import Interrupted, stop_on_signal
from detpipe.storage.manifest import plain, read_manifest
from detpipe.structures import Detections, Float32Array, Image, LeftOut

logger = logging.getLogger(__name__)

CHUNK = 8
"""Images whose crops share batches, as in `detect`."""
PART = 64 * CHUNK
"""Images of a part."""


def run(config: Detect, proposer: Proposer | None) -> None:
    """Detect in the images of `source` that `out` does not have, and name the unreadable ones.

    proposer: of new images; None if the network proposes itself. Raises BrokenImageError if no image is readable.
    """
    assert config.source is not None
    assert config.out is not None
    begun = time.perf_counter()
    detector = Detector.from_run(
        config.run_dir,
        device=config.device.value,
        config=config.detect,
        precision=config.precision.value,
        proposer=proposer,
        max_pixels=config.max_pixels,
    )
    source = DetectedImages(root=config.source, max_bad=1.0, outside=config.outside, max_pixels=config.max_pixels)
    entries = source.entries(Split.test)
    manifest = PartsManifest(
        settings=plain({"detect": replace(config.detect, compile=False), "precision": detector.precision}),
        classifier=read_manifest(config.folder.classifier).digest,
        classes=list(detector.classes),
    )
    parts = DetectionParts(Path(config.out), manifest, overwrite=config.overwrite)
    new = [entry for entry in entries if str(entry.image_id) not in parts.done]
    # Unreadable ones are tried again, last, so that the others share batches as if the command had not been stopped.
    new.sort(key=lambda entry: str(entry.image_id) in parts.failed)
    kept = len(entries) - len(new)
    if kept:
        logger.info("detect: %d of %d images are in %s", kept, len(entries), parts.folder)
    unreadable: list[LeftOut] = []
    with stop_on_signal() as stop:
        detected = _detected(new, detector, source_root(config.source), unreadable)
        found = progress(detected, "detect", total=len(new), unit="images")
        rows: list[ImageRows] = []
        failed: list[str] = []
        for number, (entry, one) in enumerate(found, start=1):
            if one is None:
                failed.append(str(entry.image_id))
            else:
                rows.append(one)
            if number % PART == 0 or number == len(new) or (stop and number % CHUNK == 0):
                if rows:
                    parts.write(rows, failed)
                rows, failed = [], []
                if stop:
                    break
    if stop:
        raise Interrupted(f"what is finished is in {parts.folder}; run the same command again, it continues from there")
    if not parts.done:
        reasons = "; ".join(map(str, unreadable[:3]))
        raise BrokenImageError(f"source={config.source}: expected a readable image, got none: {reasons}")
    parts.finish(unreadable)
    for fault in unreadable[:MOST_NAMED]:
        logger.log(RESULT, "detect: can't be read: %s", fault)
    logger.log(
        RESULT,
        "detect: %d detections with a score of at least %g in %d images (%d new, %d unreadable) in %.1f s -> %s",
        parts.detections,
        config.detect.score_floor,
        len(parts.done),
        len(new) - len(unreadable),
        len(unreadable),
        time.perf_counter() - begun,
        parts.folder,
    )


MOST_NAMED = 20
"""Unreadable images that are named; the manifest has all."""


def _detected(
    entries: Sequence[Entry], detector: Detector, root: Path, unreadable: list[LeftOut]
) -> Iterator[tuple[Entry, ImageRows | None]]:
    """Yield each entry with its detections, in order; None for an unreadable image, which is added to the list."""

    def read(chunk: Sequence[Entry]) -> Iterator[tuple[Image, Float32Array] | None]:
        for entry in chunk:
            try:
                if entry.image is None:
                    raise BrokenImageError(str(entry.fault))
                yield detector.with_regions(entry.image)
            except (BrokenImageError, OSError) as error:
                unreadable.append(LeftOut.because(entry.image or entry.origin, error))
                logger.warning("no detections: %s", unreadable[-1])
                yield None

    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        for entry, one in zip(chunk, of_readable(detector.predict_many, read(chunk)), strict=True):
            yield entry, None if one is None else _rows(entry, one, root)


def _rows(entry: Entry, found: Detections, root: Path) -> ImageRows:
    assert entry.image is not None
    return ImageRows(str(entry.image_id), entry.image.relative_to(root).as_posix(), found)
