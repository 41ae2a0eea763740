"""`detpipe run`: the whole flow, from images with boxes to average precisions and a page of pictures."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from detpipe.backbone.create import check_weights, map_strides
from detpipe.classify.kinds import LearnsFrom, check_detect_settings, kind_of_head
from detpipe.commands import check, crop, detect, evaluate, features, propose, train_multibox
from detpipe.commands.run_settings import Run
from detpipe.commands.stage_settings import Crop, Detect, Evaluate, Features, TrainCls, TrainMultiBox
from detpipe.commands.train_cls.command import train_regions
from detpipe.datasets.findings import Severity
from detpipe.datasets.source import Split
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.stored.feature_head import StoredHeadConfig
from detpipe.heads.stored.zero_shot import ZeroShotConfig
from detpipe.heads.table import head_word
from detpipe.network.device import resolve_device
from detpipe.network.network_folder import WEIGHTS
from detpipe.proposals.fusion import Fused
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.proposals.proposer import Proposer
from detpipe.runs.detect_settings import (
    KeptSettings,
    inference_precision,
    keep_settings,
)
from detpipe.runs.run_folder import copy_proposals, load_splits
from detpipe.runs.training_images import taught_classes
from detpipe.solver.initial_weights import check_start_weights

logger = logging.getLogger(__name__)


def run(config: Run) -> None:
    """Where might things be, what are they, and how good is the answer."""
    kind = kind_of_head(config.head)
    say_departures(config)
    check_settings(config)
    gate(config)
    check_proposals(config)
    config = with_proposals(config)
    if config.fine_tune:
        config = fine_tuned(config)
    if kind.learns_from is LearnsFrom.crops:
        crop.run(config.stage(Crop))
    if kind.learns_from is LearnsFrom.features:
        features.run(config.stage(Features))
    train_regions(config.stage(TrainCls))
    if kind.proposes:
        propose.run(config)
    detect.run(config.stage(Detect))
    precision = inference_precision(config.precision, config.folder.classifier, resolve_device(config.device))
    keep_settings(config.folder.classifier, KeptSettings(detect=config.detect, precision=precision), replace=True)
    evaluate.run(config.stage(Evaluate))
    summarize(config)


def check_settings(config: Run) -> None:
    """Raise now, in the words of the later stages, what of their settings they would refuse: after hours of work."""
    resolve_device(config.device)
    check_detect_settings(config.detect, kind_of_head(config.head), f"this run has head={head_word(config.head)}")
    check_weights(config.backbone)
    check_start_weights(config.solver.weights, "solver.weights")
    if isinstance(config.head, FastRcnnConfig):
        map_strides(config.backbone, config.head.maps)


def check_proposals(config: Run) -> None:
    """Raise now what `propose` would refuse, where a network is trained before it."""
    proposals: Proposer | None = config.proposals if kind_of_head(config.head).proposes else None
    if isinstance(config.proposals, Fused | MultiBoxProposals) and lacks_network(config.proposals):
        proposals = None
        if isinstance(config.proposals, Fused):
            others = [source for source in config.proposals.sources if source != "multibox"]
            proposals = replace(config.proposals, sources=others, budgets=None) if others else None
    if proposals is not None:
        proposals.check(list(load_splits(config.data_source).values()))


def with_proposals(config: Run) -> Run:
    """Propose; before it, train a MultiBox that has no weights yet. A head that proposes is trained first itself.

    Returns the settings with the folder of that network.
    """
    proposals = config.proposals
    if isinstance(proposals, Fused | MultiBoxProposals) and lacks_network(proposals):
        config = replace(config, proposals=replace(proposals, weights=str(config.folder.multibox)))
        if not kind_of_head(config.head).proposes:
            train_multibox.run(proposer_training(config))
    if not kind_of_head(config.head).proposes:
        propose.run(config)
    return config


def lacks_network(proposals: Fused | MultiBoxProposals) -> bool:
    """Whether it proposes, alone or among others, by a MultiBox that is still to be trained."""
    return not proposals.weights and (isinstance(proposals, MultiBoxProposals) or "multibox" in proposals.sources)


def proposer_training(config: Run) -> TrainMultiBox:
    """The settings of the training of the run's MultiBox."""
    training, solver = config.stage(TrainMultiBox), config.multibox_solver.solver()
    return replace(training, solver=solver, val_share=config.sampling.val_share)


def gate(config: Run) -> None:
    """A brief look at the data first: name what will be left out; loading fails above max_bad.

    Raises ValueError where the stages to come would: without training and test images, or objects to learn from.
    """
    source = config.data_source
    lists = [split.value for split in Split if source.has(split)]
    if Split.train.value not in lists or Split.test.value not in lists:
        raise ValueError(f"run: expected a train and a test list of images, got {lists}; name them in dataset.*")
    report = check.inspect(config, full=False)
    if report.at_least(Severity.WARNING):
        logger.info("%s", report.to_text(files_per_kind=2))
    train = source.load(Split.train)
    taught = taught_classes(train)
    lacking = [name for name in train.classes if name not in taught]
    if not taught or (lacking and isinstance(config.head, StoredHeadConfig) and config.head.NEEDS_EACH):
        raise ValueError(
            f"{train.name}: expected training objects of each class to learn from, got none of {lacking}; "
            f"leave out what has none: dataset.classes=[{','.join(taught) or '...'}]"
        )
    if lacking and not isinstance(config.head, ZeroShotConfig):  # which finds a class by its vector
        logger.warning("%s: no training object of %s, which will not be found", train.name, ", ".join(lacking))


def fine_tuned(config: Run) -> Run:
    """R-CNN's first training (Girshick et al. 2014, section 2.3), in a run folder of its own within the run's.

    Returns the settings with the backbone that came out, whose softmax head another one replaces (appendix B).
    """
    inner = replace(config, run_dir=str(config.folder.fine_tuned), head=config.tuning.head(), fine_tune=False)
    inner.folder.path.mkdir(parents=True, exist_ok=True)
    copy_proposals(config.folder, inner.folder)
    crop.run(inner.stage(Crop))
    train_regions(inner.stage(TrainCls))
    weights = str(inner.folder.classifier / WEIGHTS)
    return replace(config, backbone=replace(config.backbone, weights=weights, download=False))


def say_departures(config: Run) -> None:
    """What of a preset is not its paper's."""
    for departure in config.departures:
        logger.info("not as in the paper: %s", departure)


def summarize(config: Run) -> None:
    """The table at the end: what each stage took, and where its work is."""
    say_departures(config)
    metrics = json.loads(config.folder.metrics.read_text(encoding="utf-8"))
    places = {
        "train-multibox": config.folder.multibox,
        "propose": config.folder.proposals,
        "crop": config.folder.crops,
        "fine-tune": config.folder.fine_tuned,
        "features": config.folder.features(Split.train).parent,
        "train-cls": config.folder.classifier,
        "detect": config.folder.detections,
        "eval": config.folder.metrics,
    }
    rows = [f"{stage:<14} {seconds:>8.1f} s   {places[stage]}" for stage, seconds in metrics["seconds"].items()]
    total = sum(metrics["seconds"].values())
    logger.info("\n%s\n%-14s %8.1f s\n\nthe page: %s", "\n".join(rows), "all", total, config.folder.report)
