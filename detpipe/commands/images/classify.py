"""`detpipe detect source=` with a classifier of whole images: the class of each photo -> sources/NAME/classes.csv."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.settings import DetectConfig
from detpipe.commands.stage_settings import Detect
from detpipe.console import RESULT
from detpipe.datasets.image_file import BrokenImageError, file_digest, read_image
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.source import Split
from detpipe.progress import progress
from detpipe.runs.image_classifier import BATCH, Classification, Classifier
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.source_folder import resolved_source, source_folder, source_root
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.storage.dataclass_json import read_value
from detpipe.storage.manifest import Artefact, digest_of, read_manifest
from detpipe.structures import ImageRecord, LeftOut

logger = logging.getLogger(__name__)

SHOWN = 5
"""Classes of each photo in the files, best first."""


@dataclass(frozen=True)
class Row:
    """One photo. file: relative to the source. classes: the most probable ones with probabilities, best first."""

    file: str
    classes: dict[str, float]


def run(config: Detect) -> None:
    """Classify the images of `source` and write classes.json, classes.csv and classes.html.

    Raises ClassifierError for settings of a detector, BrokenImageError if no image is readable.
    """
    assert config.source is not None
    refuse_detector_settings(config)
    classifier = Classifier.from_run(config.folder.path, device=config.device.value, max_pixels=config.max_pixels)
    source = DetectedImages(root=config.source, max_bad=1.0, outside=config.outside, max_pixels=config.max_pixels)
    images = source.load(Split.test)
    out = source_folder(config.folder, config.source)
    contents = digest_of([file_digest(record.path).hex() for record in images.records])
    artefact = Artefact(
        out.photo_classes,
        stage="classify",
        settings={"source": resolved_source(config.source)},
        inputs={"classifier": read_manifest(config.folder.classifier).digest, "images": contents},
    )
    root = source_root(config.source)
    # The photos of a source may change, and classifying again loses nothing.
    found = artefact.found()
    changed = found is not None and found.inputs != artefact.manifest.inputs
    with artefact.making(overwrite=config.overwrite or changed) as making:
        if making.needed:
            bad: list[LeftOut] = [*images.bad]
            rows = list(classified(classifier, images.records, root, bad))
            if not rows:
                reasons = "; ".join(map(str, bad[:3]))
                raise BrokenImageError(f"source={config.source}: expected a readable image, got none: {reasons}")
            write_json(out.photo_classes, [asdict(row) for row in rows])
            making.summary = {"images": len(rows)}
            making.bad = bad
    write_pages(config, classifier, out, artefact, root)


def refuse_detector_settings(config: Detect) -> None:
    """Raise ClassifierError for settings that only a detector has."""
    given = [name for name in ("voc_results", "coco", "yolo") if getattr(config, name)]
    if config.detect != DetectConfig():
        given.append("detect")
    if given:
        raise ClassifierError(
            f"{' and '.join(given)}: expected a detector, got a classifier of whole images, which finds no boxes; "
            "leave them out"
        )


def classified(classifier: Classifier, records: Sequence[ImageRecord], root: Path, bad: list[LeftOut]) -> Iterator[Row]:
    """Yield the row of each readable photo, in order. Others are added to `bad`, with a warning."""
    starts = range(0, len(records), BATCH)
    for start in progress(starts, "classify", total=len(starts), unit="batches"):
        inputs, files = [], []
        for record in records[start : start + BATCH]:
            try:
                inputs.append(classifier.input_of(record.path))
                files.append(record.path.relative_to(root).as_posix())
            except (ValueError, OSError) as error:  # broken, or smaller than the crop
                bad.append(LeftOut.because(record.path, error))
                logger.warning("no class: %s", bad[-1])
        for file, found in zip(files, classifier.predict_many(inputs), strict=True):
            yield Row(file, best_of(found))


def best_of(found: Classification) -> dict[str, float]:
    """Return the most probable classes with their probabilities, as written."""
    return {one.name: float(f"{one.score:.6g}") for one in found.top(SHOWN)}


def write_pages(config: Detect, classifier: Classifier, out: RunFolder, artefact: Artefact, root: Path) -> None:
    """Write classes.csv and classes.html from classes.json, and log the counts."""
    # Imported here, because pages import matplotlib.
    from detpipe.report.photo_page import MAX_IMAGES, PhotoPage, counts_text, picture, write_photo_page

    rows = read_value(out.photo_classes, list[Row], "give overwrite=true")
    table, page = out.path / "classes.csv", out.path / "classes.html"
    write_bytes(table, as_csv(rows))
    pictures = [
        picture(read_image(root / row.file, classifier.options), row.file, list(row.classes.items()))
        for row in rows[:MAX_IMAGES]
    ]
    data = PhotoPage(
        source=str(config.source),
        classes=classifier.classes,
        best=[next(iter(row.classes.items())) for row in rows],
        bad=[str(fault) for fault in artefact.manifest.bad],
        pictures=pictures,
    )
    write_photo_page(page, data)
    logger.log(RESULT, "%s", counts_text(data))
    logger.log(
        RESULT,
        "detect: classes of %d images in %.1f s -> %s, page %s",
        len(rows),
        artefact.manifest.seconds,
        table,
        page,
    )


def as_csv(rows: Sequence[Row]) -> bytes:
    """Return a table: file, class, probability, then the next classes and probabilities.

    Bytes of file names that are not UTF-8 become U+FFFD.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    most = max((len(row.classes) for row in rows), default=1)
    more = [f"{name}_{rank}" for rank in range(2, most + 1) for name in ("class", "probability")]
    writer.writerow(["file", "class", "probability", *more])
    for row in rows:
        writer.writerow([row.file, *(value for pair in row.classes.items() for value in pair)])
    return text.getvalue().encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode("utf-8")
