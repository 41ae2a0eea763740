"""`detpipe explain`: what happened to each object of one image, in sentences and as explain/NAME.jpg.

It reads what `detpipe detect` stored. No network runs.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path

from detpipe.commands.explain_settings import Explain
from detpipe.console import RESULT
from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.datasets.source import Split
from detpipe.diagnosis.diagnose import operating_point
from detpipe.diagnosis.explanation import Explanation, ImageFacts, explain_false, explain_objects
from detpipe.diagnosis.oracles import Scene
from detpipe.report.drawing import to_jpeg
from detpipe.report.explain_picture import explanation_picture
from detpipe.runs.diagnosed_run import detector_settings, with_traced
from detpipe.runs.run_detections import run_detections
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.stored_split import open_split
from detpipe.runs.trace_file import read_traces
from detpipe.storage.atomic import write_bytes
from detpipe.storage.manifest import ArtefactError
from detpipe.structures import Dataset, Float32Array, ImageRecord

logger = logging.getLogger(__name__)


def run(config: Explain) -> None:
    """Print what happened to the objects of an image, and draw it."""
    if not config.image:
        raise ValueError("image: expected a test image, got none; give image=NAME, an id, a file name or a path")
    dataset = config.data_source.load(Split.test)
    record = find_image(dataset, config.image)
    facts = image_facts(config, dataset, record)
    objects = explain_objects(facts)
    if config.object is not None and config.object >= len(objects):
        raise ValueError(
            f"object: expected a number below {len(objects)}, the objects of {record.path.name}, got {config.object}"
        )
    chosen = objects if config.object is None else [objects[config.object]]
    false = explain_false(facts)
    told = [*chosen, *(false if config.object is None else [])]
    logger.log(RESULT, "%s", "\n".join([counts_text(record, facts, objects, false), *map(explained_text, told)]))
    errors = [one for one in told if one.is_error]
    try:
        image = read_image(record.path, record.options)
    except (BrokenImageError, OSError) as error:
        logger.warning("no picture: %s", error)
        return
    picture = config.folder.explain / f"{record.image_id}.jpg"
    write_bytes(picture, to_jpeg(explanation_picture(image, errors or chosen)))
    logger.log(RESULT, "explain: picture -> %s", picture)


def find_image(dataset: Dataset, name: str) -> ImageRecord:
    """Return the test image with this id, file name or path.

    Raises ValueError, which names the nearest images, if no image or several have this name.
    """
    path = Path(name)
    for found in (
        [one for one in dataset.records if str(one.image_id) == name],
        [one for one in dataset.records if path.is_absolute() or len(path.parts) > 1 if _same(one.path, path)],
        [one for one in dataset.records if one.path.name == name],
        [one for one in dataset.records if one.path.stem == name],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(str(one.image_id) for one in found[:5])
            raise ValueError(f"image: expected one image, got {len(found)} called {name}; give one of the ids {some}")
    names = {text for one in dataset.records for text in (str(one.image_id), one.path.name)}
    near = difflib.get_close_matches(path.name, sorted(names), n=3, cutoff=0.4) or sorted(names)[:3]
    raise ValueError(
        f"image: expected an image of {dataset.name}, got {name}; the nearest names are {', '.join(near)}. Only images "
        "of the test split have detections"
    )


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are of one file, or the second is the end of the first."""
    absolute = other if other.is_absolute() else Path.cwd() / other
    return one.absolute() == absolute or one.parts[-len(other.parts) :] == other.parts


def image_facts(config: Explain, dataset: Dataset, record: ImageRecord) -> ImageFacts:
    """Return what the run folder knows of an image.

    Raises ValueError if the test split has no annotations, and as `run_detections` and `read_traces`.
    """
    truth = dataset.measured_truth
    if truth is None:
        raise ValueError(f"{dataset.name}: expected annotations of the images, got none; give a data set with them")
    detections = run_detections(config.folder, dataset)
    threshold, why = operating_point(config.threshold, Scene(truth, detections))
    traces = read_traces(config.folder.object_traces, dataset)
    detector = detector_settings(config.folder, None, dataset)
    if traces is None:
        logger.warning(
            "%s: expected what became of each object, got no such file of these images; only the final detections are "
            "explained. Run `detpipe detect` with overwrite=true for the rest",
            config.folder.object_traces,
        )
    else:
        detector = with_traced(detector, traces)
    of_image = traces.images.get(record.image_id) if traces is not None else None
    if traces is not None and of_image is None:
        logger.warning("%s: was not readable when the run detected in it", record.path)
    return ImageFacts(
        image=record.image_id,
        truth=truth[record.image_id],
        detections=detections[record.image_id],
        classes=dataset.classes,
        threshold=threshold,
        threshold_why=why,
        traces=of_image,
        proposals=proposals_of(config.folder, dataset, record),
        detector=detector,
        score_floor=traces.detect.score_floor if traces is not None else None,
    )


def proposals_of(folder: RunFolder, dataset: Dataset, record: ImageRecord) -> Float32Array | None:
    """Return all stored proposals (P, 4) of an image, best first. Without stored proposals, log it and return None."""
    try:
        split = open_split(folder.proposals, Split.test, dataset)
    except ArtefactError as error:
        logger.warning("without the stored proposals: %s", error)
        return None
    ((_, stored),) = split.read([record])
    return stored.proposals.boxes if stored is not None else None


def counts_text(
    record: ImageRecord, facts: ImageFacts, objects: Sequence[Explanation], false: Sequence[Explanation]
) -> str:
    """Return the numbers of the whole image as a line. objects, false: all of it."""
    missed = sum(one.is_error for one in objects)
    shown = int((facts.detections.scores >= facts.threshold).sum())
    return (
        f"{record.image_id} ({record.path}): {_count(len(objects), 'object')}, {missed} missed; "
        f"{_count(shown, 'detection')} with a score of at least {facts.threshold:.2f}, {len(false)} false"
    )


def explained_text(one: Explanation) -> str:
    """Return an explanation as text, after an empty line."""
    lines = ["", one.title, *(f"  {line}" for line in one.lines)]
    return "\n".join([*lines, f"  Change: {one.change}."] if one.change else lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
