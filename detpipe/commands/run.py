"""`detpipe run`: the whole flow, from images with boxes to average precisions and a page of pictures."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from detpipe.commands import check, crop, detect, evaluate, features, propose, train_cls, train_regions
from detpipe.datasets.findings import Severity
from detpipe.datasets.source import Split

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Run(propose.Propose, crop.Crop, features.Features, train_cls.TrainCls, detect.Detect, evaluate.Evaluate):
    """Settings of `detpipe run`: those of all its stages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, command in (("source", "detect"), ("detections", "eval")):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: belongs to `detpipe {command}`; `detpipe run` takes a data set")


def run(config: Run) -> None:
    """Where might things be, what are they, and how good is the answer."""
    gate(config)
    propose.run(config)
    if train_regions.needs_crops(config.head):
        crop.run(config)
    if train_regions.needs_features(config.head):
        features.run(config)
    train_regions.run(config)
    detect.run(config)
    evaluate.run(config)
    summarize(config)


def gate(config: Run) -> None:
    """A brief look at the data first: name what will be left out; loading fails above max_bad."""
    report = check.inspect(config, full=False)
    if report.at_least(Severity.WARNING):
        logger.info("%s", report.to_text(files_per_kind=2))


def summarize(config: Run) -> None:
    """The table at the end: what each stage took, and where its work is."""
    metrics = json.loads(config.folder.metrics.read_text(encoding="utf-8"))
    places = {
        "propose": config.folder.proposals,
        "crop": config.folder.crops,
        "features": config.folder.features(Split.train).parent,
        "train-cls": config.folder.classifier,
        "detect": config.folder.detections,
        "eval": config.folder.metrics,
    }
    rows = [f"{stage:<10} {seconds:>8.1f} s   {places[stage]}" for stage, seconds in metrics["seconds"].items()]
    total = sum(metrics["seconds"].values())
    logger.info("\n%s\n%-10s %8.1f s\n\nthe page: %s", "\n".join(rows), "all", total, config.folder.report)
