"""The trained classifier of a run folder, of whichever kind: what it tells of itself, and at work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from detpipe.classify import fast_rcnn_classifier
from detpipe.classify.cascade import CascadeScorer
from detpipe.classify.classifier import load_classifier, load_spec
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError, RegionSpec, read_description
from detpipe.classify.detect import DetectConfig, RegionScorer, Scorer
from detpipe.classify.device import resolve_bf16
from detpipe.classify.fast_rcnn_classifier import load_fast_rcnn, load_fast_rcnn_spec
from detpipe.classify.image_scorer import ImageScorer


def load_region_spec(folder: Path) -> RegionSpec:
    """Classes and backbone of the classifier in `folder`. Raises ClassifierError where there is none of regions."""
    match read_description(folder).get("kind"):
        case None:
            return load_spec(folder)
        case fast_rcnn_classifier.KIND:
            return load_fast_rcnn_spec(folder)
        case other:
            raise ClassifierError(
                f"{folder / DESCRIPTION}: wanted a classifier of regions, got one of whole {other}, made by train-cls "
                "db.train=DB, that knows no regions"
            )


def load_scorer(folder: Path, config: DetectConfig, device: torch.device) -> tuple[Scorer, RegionSpec]:
    """The classifier at work on a device, and its spec. Raises as `load_region_spec`."""
    bf16 = resolve_bf16(config.precision, device)
    if isinstance(load_region_spec(folder), fast_rcnn_classifier.FastRcnnSpec):
        if config.cascade_size is not None:
            raise ClassifierError(f"detect.cascade_size: goes with a classifier of crops; {folder} holds a Fast R-CNN")
        network, spec = load_fast_rcnn(folder)
        scorer = ImageScorer(
            network,
            scales=config.scales or spec.head.scales[-1:],
            max_side=spec.head.max_side,
            flip=config.flip,
            refine=spec.head.refine,
            device=device,
            bf16=bf16,
            compiled=config.compile,
        )
        return scorer, spec
    if config.scales or config.flip:
        raise ClassifierError(f"detect.scales, detect.flip: go with a Fast R-CNN; {folder} holds a classifier of crops")
    return crop_scorer(folder, config, device, bf16)


def crop_scorer(folder: Path, config: DetectConfig, device: torch.device, bf16: bool) -> tuple[Scorer, RegionSpec]:
    """A classifier of crops at work, with a first look at smaller ones where the settings say so."""
    network, spec = load_classifier(folder)

    def of_size(size: int) -> RegionScorer:
        return RegionScorer(
            network,
            replace(spec.crops, size=size),
            device=device,
            bf16=bf16,
            compiled=config.compile,
            batch_size=config.batch_size,
        )

    whole = of_size(spec.crops.size)
    if config.cascade_size is None:
        return whole, spec
    return CascadeScorer(of_size(config.cascade_size), whole, keep=config.cascade_keep), spec
