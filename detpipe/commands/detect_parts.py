"""`detpipe detect source=DIR out=DIR.parquet`: detections of many images as parts of a Parquet folder.

Only the detections of one part are in memory. A part is written when its images are done, and a later call continues
with the images that no part has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from detpipe.classify.classifier_folder import RegionSpec
from detpipe.commands.stage_settings import Detect
from detpipe.console import RESULT
from detpipe.datasets.entry import Entry
from detpipe.datasets.image_file import BrokenImageError
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.source import Split
from detpipe.network.settings import Precision
from detpipe.progress import progress
from detpipe.proposals.proposer import Proposer
from detpipe.runs.detected_files import CHUNK, detected_files
from detpipe.runs.detector import Detector
from detpipe.runs.parquet_results import DetectionParts, ImageRows, PartsManifest
from detpipe.runs.source_folder import source_root
from detpipe.storage.interrupt import Interrupted, StopRequest, stop_on_signal
from detpipe.storage.manifest import plain, read_manifest
from detpipe.structures import Detections, LeftOut

logger = logging.getLogger(__name__)

PART = 64 * CHUNK
"""Images of a part."""


Detected = Callable[[Sequence[Entry], StopRequest], Generator[Detections | LeftOut, None, None]]
"""Makes the detections of each image, or says why it can't be read, in order. Where it waits for long, it raises
Interrupted after a signal."""


def run(config: Detect, proposer: Proposer | None) -> None:
    """Detect in the images of `source` that `out` does not have, and name the unreadable ones.

    proposer: of new images; None if the network proposes itself. Raises BrokenImageError if no image is readable.
    """
    detector = Detector.from_run(
        config.run_dir,
        device=config.device.value,
        config=config.detect,
        precision=config.precision.value,
        proposer=proposer,
        max_pixels=config.max_pixels,
    )
    write_parts(config, detector.spec, detector.precision, lambda new, _: detected_files(detector, map(file_of, new)))


def file_of(entry: Entry) -> Path | LeftOut:
    """The file of an image. If the entry has no file: the entry and its fault."""
    return entry.image if entry.image is not None else LeftOut.because(entry.origin, entry.fault)


def write_parts(config: Detect, spec: RegionSpec, precision: Precision, detected: Detected) -> None:
    """Write the parts that `out` does not have. spec, precision: of the detector. Raises as `run`."""
    assert config.source is not None
    assert config.out is not None
    begun = time.perf_counter()
    source = DetectedImages(root=config.source, max_bad=1.0, outside=config.outside, max_pixels=config.max_pixels)
    entries = source.entries(Split.test)
    manifest = PartsManifest(
        settings=plain({"detect": replace(config.detect, compile=False), "precision": precision}),
        classifier=read_manifest(config.folder.classifier).digest,
        classes=list(spec.classes),
    )
    parts = DetectionParts(Path(config.out), manifest, overwrite=config.overwrite)
    new = [entry for entry in entries if str(entry.image_id) not in parts.done]
    # Unreadable ones are tried again, last, so that the others share batches as if the command had not been stopped.
    new.sort(key=lambda entry: str(entry.image_id) in parts.failed)
    kept = len(entries) - len(new)
    if kept:
        logger.info("detect: %d of %d images are in %s", kept, len(entries), parts.folder)
    unreadable: list[LeftOut] = []
    rows: list[ImageRows] = []
    failed: list[str] = []
    root = source_root(config.source)
    with stop_on_signal() as stop, closing(detected(new, stop)) as results:
        images = progress(zip(new, results, strict=True), "detect", total=len(new), unit="images")
        with suppress(Interrupted):
            for number, (entry, one) in enumerate(images, start=1):
                if isinstance(one, LeftOut):
                    logger.warning("no detections: %s", one)
                    unreadable.append(one)
                    failed.append(str(entry.image_id))
                else:
                    rows.append(_rows(entry, one, root))
                if number % PART == 0 and rows:
                    parts.write(rows, failed)
                    rows, failed = [], []
                if stop and number % CHUNK == 0:
                    break
        if rows:
            parts.write(rows, failed)
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


def _rows(entry: Entry, found: Detections, root: Path) -> ImageRows:
    assert entry.image is not None
    return ImageRows(str(entry.image_id), entry.image.relative_to(root).as_posix(), found)
