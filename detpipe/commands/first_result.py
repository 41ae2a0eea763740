"""The first result of a long run with experiment=auto: a quick head on stored features, in first_result/."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.kinds import kind_of_head
from detpipe.classify.labeling import SamplingConfig
from detpipe.classify.settings import DetectConfig
from detpipe.commands.run_settings import Run
from detpipe.console import PROGRESS, RESULT, silent
from detpipe.datasets.source import Split
from detpipe.heads.stored.two_layers import TwoLayersConfig
from detpipe.progress import as_time
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.few_images import FewImages
from detpipe.runs.run_folder import RunFolder, copy_proposals
from detpipe.storage.dataclass_json import read_object
from detpipe.storage.manifest import find_manifest
from detpipe.tracking.tracker import NoTracker

logger = logging.getLogger(__name__)

LONG = 240.0
"""Seconds of a run above which a first result is made: below, it would take a large part of the run's time."""
FIRST_SECONDS = 60.0
"""A generous estimate of what it takes (36 s for 363 images on one core of Zen 4): a `budget` must have this
above the least that its run takes."""
MOST_TRAIN, MOST_TEST = 400, 100
"""The most images of it, so that it takes no longer with larger data sets."""
REGIONS = 200
"""Proposals of an image: the best ones."""


def make_first(config: Run, make: Callable[[Run], None], estimate: float) -> None:
    """Make first_result/ by `make`, all stages of a run, unless it is there or the run is short or nearly done.

    estimate: seconds of the run. After a kill it continues. The main run goes on if it fails, and its files do not
    depend on it.
    """
    folder = RunFolder(config.folder.first_result)
    if config.chosen_recipe is None or not config.first_result or estimate <= LONG:
        return
    if not config.overwrite and (folder.metrics.is_file() or is_trained(config.folder)):
        return
    begun, inner = time.perf_counter(), first_settings(config)
    few = "" if inner.dataset is config.data_source else f" of {MOST_TRAIN} training images"
    logger.info("first result: a quick head on stored features%s, before the run of %s", few, config.chosen_recipe)
    inner.folder.path.mkdir(parents=True, exist_ok=True)
    shared = inner.proposals is config.proposals and inner.dataset is config.data_source
    if shared and find_manifest(folder.proposals) is None:
        copy_proposals(config.folder, folder)
    try:
        with silent(but=PROGRESS):
            make(inner)
        precision = mean_precision(folder)
    except (ValueError, RuntimeError) as error:
        logger.warning("first result: failed, and the run goes on: %s", error)
        return
    if shared and find_manifest(config.folder.proposals) is None:
        copy_proposals(folder, config.folder)
    logger.log(
        RESULT,
        "first result after %s: VOC10 mAP@0.5 %s -> %s; the run goes on with %s",
        *(as_time(time.perf_counter() - begun), precision, folder.report, config.chosen_recipe),
    )


def first_settings(config: Run) -> Run:
    """The settings of the first result: few regions, the maps of the whole image at one size, and a small head.

    A main run that uses selective search shares its proposals.
    """
    source = config.data_source
    counts = [(Split.train, MOST_TRAIN), (Split.test, MOST_TEST)]
    if any(len(source.load(split)) > most for split, most in counts):
        source = FewImages(
            whole=source, train=MOST_TRAIN, others=MOST_TEST, stretch=source.stretch, max_bad=source.max_bad
        )
    uses_search = isinstance(config.proposals, SelectiveSearch) and not kind_of_head(config.head).proposes
    return replace(
        config,
        run_dir=str(config.folder.first_result),
        dataset=source,
        proposals=config.proposals if uses_search else SelectiveSearch(max_proposals=REGIONS),
        sampling=SamplingConfig(max_proposals=REGIONS, val_share=config.sampling.val_share),
        features=FeatureConfig(crops=False, image_sides=[320]),
        head=TwoLayersConfig(networks=2),
        detect=DetectConfig(max_proposals=REGIONS, vote_iou=0.5, compile=config.detect.compile),
        fine_tune=False,
        track=NoTracker(),
        tasks=None,
        merge=True,
        budget=None,
        chosen_recipe=None,
    )


def is_trained(folder: RunFolder) -> bool:
    """Whether the main run has its classifier, so that its own result is near."""
    manifest = find_manifest(folder.classifier)
    return manifest is not None and manifest.complete


def mean_precision(folder: RunFolder) -> str:
    """mAP@0.5 by VOC 2010 in metrics.json, as text."""
    values = read_object(folder.metrics).get("voc10")
    found = values.get("map") if isinstance(values, Mapping) else None
    return f"{found:.3f}" if isinstance(found, float) else "not defined"
