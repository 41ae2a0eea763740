"""`detpipe curve`: accuracy and time by the number of proposals per image -> curve.json, .png, .html."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from detpipe.classify.budget_pass import BudgetPass, budget_pass
from detpipe.classify.classifier_folder import ClassifierError, check_classes
from detpipe.classify.detect import Scorer
from detpipe.classify.kinds import load_region_spec
from detpipe.commands.detect import stored_regions
from detpipe.commands.detector_settings import Curve
from detpipe.console import RESULT, amount
from detpipe.datasets.image_file import read_image
from detpipe.metrics.bootstrap import LEVEL
from detpipe.metrics.budget_curve import BudgetCurve, StageSeconds, budget_curve, share_of_scoring
from detpipe.metrics.overlap_table import overlap_table
from detpipe.progress import Counter, counted
from detpipe.proposals.methods import method_name, proposer_of
from detpipe.report.budget_page import BudgetPage, budget_curve_figure, budget_sentences, budget_text, write_budget_page
from detpipe.report.curves import to_png
from detpipe.runs.detected_files import CHUNK
from detpipe.runs.detector import Detector
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.storage.manifest import plain, read_manifest
from detpipe.structures import Float32Array, Image, ImageRecord

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

TIMED = 24
"""Number of evenly spaced images on which proposing, and scoring one region, are timed."""


def run(config: Curve) -> None:
    """Score all proposals of the split once, and measure accuracy and time for each number of proposals (budget)."""
    dataset = config.data_source.load(config.split)
    truth = dataset.measured_truth
    if truth is None:
        raise ValueError(
            f"{dataset.name}: expected annotations to evaluate against, got no annotations; give a split with boxes"
        )
    spec = load_region_spec(config.folder.classifier)
    check_classes(spec, dataset.classes, dataset.name)
    stored = open_split(config.folder.proposals, config.split, dataset)
    keep_dataset(config.folder, config.data_source)
    budgets = sorted(set(config.budgets))
    detect = replace(config.detect, max_proposals=budgets[-1])
    detector = Detector.from_run(
        config.run_dir, device=config.device.value, config=detect, precision=config.precision.value
    )
    refuse_attention(detector.scorer.network)
    timed = timed_records(stored)
    one_region = seconds_of_one_region(detector.scorer, stored, timed, budgets[-1])
    with counted("curve", total=len(dataset), unit="images") as count:
        chunks = (counting(chunk, count) for chunk in chunks_of(stored, 0 if spec.PROPOSES else budgets[-1]))
        measured = budget_pass(detector.scorer, chunks, budgets, config.detect)
    seconds = stage_seconds(measured, seconds_of_proposing(stored, timed, config.folder.classifier), one_region)
    ids = [record.image_id for record in dataset.records]
    curve = budget_curve(
        dataset,
        overlap_table(truth, stored.proposals(), len(dataset.classes), budgets),
        {budget: dict(zip(ids, detections, strict=True)) for budget, detections in measured.detections.items()},
        seconds,
        resamples=config.resamples,
        seed=config.seed,
        tolerance=config.tolerance,
    )
    write_all(config, detector, stored, curve, len(timed))


def refuse_attention(network: nn.Module) -> None:
    """Raise ClassifierError for a network whose scores of a region depend on the other regions."""
    layers = getattr(network, "attention_layers", 0)  # R-CNN's network has no such layers
    if layers:
        raise ClassifierError(
            f"curve: expected a detector that scores each region by itself, got one with head.attention={layers}; run "
            "`detpipe detect detect.max_proposals=N overwrite=true` for each number"
        )


def chunks_of(stored: StoredSplit, most: int) -> Iterator[Iterator[tuple[Image, Float32Array] | None]]:
    """Yield the images with their first `most` regions, in the chunks of `detpipe detect`.

    A network that proposes itself gets no regions (most = 0), as in detection.
    """
    records = stored.dataset.records
    for start in range(0, len(records), CHUNK):
        yield stored_regions(stored, records[start : start + CHUNK], most)


def counting(images: Iterator[Item], count: Counter) -> Iterator[Item]:
    """Yield the images and count those that are done with."""
    for image in images:
        yield image
        count.advance()


def timed_records(stored: StoredSplit) -> list[ImageRecord]:
    """Return up to TIMED evenly spaced images that have proposals."""
    records = [record for record, proposals in stored.read() if proposals is not None and len(proposals.proposals)]
    indices = np.linspace(0, len(records) - 1, min(len(records), TIMED)).round().astype(int)
    return [records[index] for index in indices]


def seconds_of_one_region(scorer: Scorer, stored: StoredSplit, records: Sequence[ImageRecord], most: int) -> float:
    """Return the seconds per image for its first region alone, with decoding and the pass over the whole image.

    most: number of regions in the warm-up. No images give 0.
    """
    if not records:
        return 0.0
    # Warm-up: the first pass compiles and allocates memory.
    score_stored(scorer, stored, records[:1], most)
    score_stored(scorer, stored, records[:1], 1)
    begun = time.perf_counter()
    for start in range(0, len(records), CHUNK):
        score_stored(scorer, stored, records[start : start + CHUNK], 1)
    return (time.perf_counter() - begun) / len(records)


def score_stored(scorer: Scorer, stored: StoredSplit, records: Sequence[ImageRecord], most: int) -> None:
    """Score the first `most` regions of each image that has proposals and discard the scores."""
    list(scorer.score(one for one in stored_regions(stored, records, most) if one is not None))


def seconds_of_proposing(stored: StoredSplit, records: Sequence[ImageRecord], kept: Path) -> float:
    """Return the seconds per image of the proposal method.

    NaN if it is unknown, needs more than the image, or lacks a file. kept: the classifier's folder, which has a copy of
    the files that the method needs.
    """
    description = stored.manifest.settings["proposals"]
    unknown = "%s: the proposal time of %s is unknown%s"
    proposer = proposer_of(description)
    if proposer is None or not proposer.from_pixels or not records:
        logger.warning(unknown, stored.path, method_name(description), "")
        return float("nan")
    proposer = proposer.kept_in(kept)
    try:
        proposer.check()
    except (OSError, ValueError) as error:  # a missing network; the other measurements are done and must not be lost
        logger.warning(unknown, stored.path, method_name(description), f": {error}")
        return float("nan")
    images = [read_image(record.path, record.options) for record in records]
    proposer(images[0])  # warm-up: compiles if necessary
    begun = time.perf_counter()
    for image in images:
        proposer(image)
    return (time.perf_counter() - begun) / len(images)


def stage_seconds(measured: BudgetPass, propose: float, one_region: float) -> dict[int, StageSeconds]:
    """Return the seconds per image of proposing, scoring (interpolated) and selection, by budget."""
    regions, images = np.array(measured.regions), max(len(measured.regions), 1)
    first = (np.minimum(regions, 1).sum() / images, one_region)
    all_regions = (regions.sum() / images, measured.score / images)
    return {
        budget: StageSeconds(
            propose=propose,
            score=share_of_scoring(first, all_regions, np.minimum(regions, budget).sum() / images),
            select=select / images,
        )
        for budget, select in measured.select.items()
    }


def write_all(config: Curve, detector: Detector, stored: StoredSplit, curve: BudgetCurve, timed: int) -> None:
    """Write the numbers, the picture and the page, print the table, and say where they are."""
    json_file, png_file, html_file = (config.folder.path / f"curve.{kind}" for kind in ("json", "png", "html"))
    method = method_name(stored.manifest.settings["proposals"])
    content: dict[str, Any] = {
        "split": config.split.value,
        "resamples": config.resamples,
        "seed": config.seed,
        "level": LEVEL,
        "method": method,
        "proposals": stored.manifest.digest,
        "classifier": read_manifest(config.folder.classifier).digest,
        "detect": plain(detector.config),
        "precision": detector.precision.value,
        "threads": torch.get_num_threads(),
        "timed_images": timed,
        **curve.to_json(),
    }
    write_json(json_file, content)
    write_bytes(png_file, to_png(budget_curve_figure(curve)))
    page = BudgetPage(subtitle=stored.dataset.name, curve=curve, method=method, resamples=config.resamples, timed=timed)
    write_budget_page(html_file, page)
    logger.log(RESULT, "\n%s\n%s", budget_text(curve), " ".join(budget_sentences(curve)))
    logger.log(RESULT, "curve: %s -> %s, %s, %s", amount(len(stored.dataset), "images"), json_file, png_file, html_file)
