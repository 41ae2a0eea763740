"""`detpipe inspect run`: the progress of a training, finished or running -> inspect_run.json, .png, .html."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detpipe.commands.inspect.settings import InspectRun
from detpipe.console import RESULT
from detpipe.report.curves import to_png
from detpipe.report.training_figure import training_figure
from detpipe.report.training_page import SnapshotFile, TrainingPage, training_text, write_training_page
from detpipe.runs.run_folder import RunFolder
from detpipe.solver.snapshot import find_snapshots
from detpipe.solver.training_log import read_log
from detpipe.solver.training_summary import Point, courses, is_number
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.storage.manifest import Manifest, find_manifest, manifest_path

logger = logging.getLogger(__name__)


def run(config: InspectRun) -> None:
    """Read the log and the manifest of a training, which may still be running, and plot them."""
    folder = training_folder(config.folder)
    data = read_training(folder)
    out = config.folder.path if config.out is None else Path(config.out)
    json_file, png_file, html_file = (out / f"inspect_run.{kind}" for kind in ("json", "png", "html"))
    write_json(json_file, as_json(data))
    write_bytes(png_file, to_png(training_figure(data.rows)))
    write_training_page(html_file, data)
    logger.log(RESULT, "%s", training_text(data))
    logger.log(RESULT, "inspect run: %d rows -> %s, %s, %s", len(data.rows), json_file, png_file, html_file)


def training_folder(run_folder: RunFolder) -> Path:
    """Return the folder of the log: classifier/, or the folder itself for a training in Python.

    Raises ValueError if there is no training.
    """
    for folder in (run_folder.classifier, run_folder.path):
        has_manifest = manifest_path(folder).is_file() and folder == run_folder.classifier
        if has_manifest or (folder / "log.jsonl").is_file():
            return folder
    raise ValueError(
        f"{run_folder.path}: expected a run folder with a training, got no {run_folder.classifier.name}/log.jsonl; "
        "give run_dir=DIR, or run train-cls first"
    )


def read_training(folder: Path) -> TrainingPage:
    """Read the files of a training; changes nothing. Raises TrainingLogError or ArtefactError for damaged files."""
    log = folder / "log.jsonl"
    rows = read_log(log)
    manifest = find_manifest(folder)
    settings = manifest.settings if manifest is not None and isinstance(manifest.settings, dict) else {}
    solver = _mapping(settings, "solver")
    batch = _whole(solver, "batch_size")
    return TrainingPage(
        subtitle=f"{folder}: {describe(settings)}" if settings else str(folder),
        rows=rows,
        complete=None if manifest is None else bool(manifest.complete),
        wanted=wanted_iterations(manifest, solver),
        batch=None if batch is None else batch * (_whole(solver, "iter_size") or 1),
        seconds=manifest.seconds if manifest is not None and is_number(manifest.seconds) else None,
        age=max(time.time() - log.stat().st_mtime, 0) if rows else None,
        snapshots=list(snapshots(folder / "snapshots")),
        settings=settings,
    )


def describe(settings: Mapping[str, Any]) -> str:
    """Return a description: the backbone, and the number of classes or MultiBox."""
    proposer = _mapping(settings, "network")
    if proposer:
        return f"{_mapping(proposer, 'backbone').get('name', 'a network')}, MultiBox"
    classifier = _mapping(settings, "classifier")
    name, classes = _mapping(classifier, "backbone").get("name", "a network"), classifier.get("classes")
    of_regions = "regions" if "crops" in classifier or "pooling" in _mapping(classifier, "head") else "images"
    return f"{name}, {of_regions} of {len(classes) if isinstance(classes, list) else 'unknown'} classes"


def wanted_iterations(manifest: Manifest | None, solver: Mapping[str, Any]) -> int | None:
    """Return the total number of iterations; None if it depends on the data and the training is not finished."""
    summary = manifest.summary if manifest is not None and isinstance(manifest.summary, dict) else {}
    done = summary.get("iterations")
    if is_number(done):
        return int(done)
    follows_data = solver.get("epochs") is not None or solver.get("min_epochs")
    return None if follows_data else _whole(solver, "max_iter")


def snapshots(folder: Path) -> Iterator[SnapshotFile]:
    """Yield the snapshots, oldest first, then the best weights. A running training may delete files meanwhile."""
    for path in [*find_snapshots(folder), *sorted(folder.glob("*best.pt"))]:
        try:
            yield SnapshotFile(name=path.name, size=path.stat().st_size)
        except FileNotFoundError:
            continue


def as_json(data: TrainingPage) -> dict[str, Any]:
    """Return the facts, and the first, last and best value of every number."""
    return {
        "training": data.subtitle,
        "complete": data.complete,
        "iterations": data.iterations,
        "expected": data.wanted,
        "iterations_per_second": data.iterations_per_second,
        "waiting": data.last("waiting"),
        "seconds": data.seconds,
        "snapshots": [asdict(snapshot) for snapshot in data.snapshots],
        "numbers": {
            one.name: {"first": _point(one.first), "last": _point(one.last), "best": _point(one.best)}
            for one in courses(data.rows)
        },
    }


def _point(point: Point | None) -> dict[str, Any] | None:
    """Return a point for JSON, which has no NaN."""
    if point is None:
        return None
    return {"iteration": point.iteration, "value": point.value if math.isfinite(point.value) else None}


def _mapping(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the settings in a group; {} if they are missing or not a mapping."""
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def _whole(settings: Mapping[str, Any], name: str) -> int | None:
    value = settings.get(name)
    return value if type(value) is int and value > 0 else None
