"""The trained classifier of a run folder, of whichever kind: what it tells of itself, and at work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError, RegionSpec, read_description
from detpipe.classify.crops.cascade import CascadeScorer
from detpipe.classify.crops.network import load_classifier, load_spec
from detpipe.classify.detect import RegionScorer, Scorer
from detpipe.classify.fast_rcnn import folder as fast_rcnn_classifier
from detpipe.classify.fast_rcnn.folder import FastRcnnSpec, load_fast_rcnn, load_fast_rcnn_spec
from detpipe.classify.fast_rcnn.scorer import ImageScorer
from detpipe.classify.features import folder as frozen_classifier
from detpipe.classify.features.extractor import RegionFeatures
from detpipe.classify.features.folder import FrozenClassifier, FrozenSpec, load_frozen, load_frozen_spec
from detpipe.classify.features.scorer import FrozenScorer
from detpipe.classify.multibox_fast_rcnn import folder as multibox_fast_rcnn_classifier
from detpipe.classify.multibox_fast_rcnn.folder import (
    MultiBoxFastRcnnSpec,
    load_multibox_fast_rcnn,
    load_multibox_fast_rcnn_spec,
)
from detpipe.classify.settings import DetectConfig
from detpipe.network.device import resolve_bf16
from detpipe.network.settings import Precision
from detpipe.runs.detect_settings import kept_detect_config


def load_region_spec(folder: Path) -> RegionSpec:
    """Classes and backbone of the classifier in `folder`. Raises ClassifierError where there is none of regions."""
    match read_description(folder).get("kind"):
        case None:
            return load_spec(folder)
        case fast_rcnn_classifier.KIND:
            return load_fast_rcnn_spec(folder)
        case multibox_fast_rcnn_classifier.KIND:
            return load_multibox_fast_rcnn_spec(folder)
        case frozen_classifier.KIND:
            return load_frozen_spec(folder)
        case other:
            raise ClassifierError(
                f"{folder / DESCRIPTION}: wanted a classifier of regions, got one of whole {other}, made by train-cls "
                "db.train=DB, that knows no regions"
            )


def load_scorer(folder: Path, config: DetectConfig, device: torch.device) -> tuple[Scorer, RegionSpec]:
    """The classifier at work on a device, and its spec.

    Raises as `load_region_spec`, and ClassifierError for settings that another kind of classifier has.
    """
    spec = load_region_spec(folder)
    fast = isinstance(spec, (FastRcnnSpec, MultiBoxFastRcnnSpec))
    of_crops = not fast and not isinstance(spec, FrozenSpec)
    check_detection(config, f"{folder} has another classifier", fast=fast, of_crops=of_crops)
    bf16 = with_precision(config, folder, device).precision is Precision.bf16
    if fast:
        return image_scorer(folder, config, device, bf16), spec
    return (crop_scorer if of_crops else frozen_scorer)(folder, config, device, bf16), spec


def with_precision(config: DetectConfig, folder: Path, device: torch.device) -> DetectConfig:
    """The settings with the precision that the classifier in `folder` computes in, float32 or bf16, in place of auto.

    auto is the precision that is kept with the classifier, so that a detector gives the same numbers wherever it is
    used. One that was not used yet computes as `resolve_bf16` says; a head on stored features as they were computed.
    Raises as `load_region_spec` and `kept_detect_settings`.
    """
    if config.precision is not Precision.auto:
        return config
    precision = kept_detect_config(folder).precision
    if precision is Precision.auto:
        spec = load_region_spec(folder)
        bf16 = bool(spec.extraction["bf16"]) if isinstance(spec, FrozenSpec) else resolve_bf16(precision, device)
        precision = Precision.bf16 if bf16 else Precision.float32
    return replace(config, precision=precision)


def check_detection(config: DetectConfig, another: str, *, fast: bool, of_crops: bool) -> None:
    """Raise ClassifierError for settings that another kind of classifier has.

    fast: it is a Fast R-CNN. of_crops: a fine-tuned one of crops. Neither: a head on stored features. another: the
    sentence's end.
    """
    if (config.scales or config.flip) and not fast:
        raise ClassifierError(f"detect.scales, detect.flip: are for a Fast R-CNN; {another}")
    if config.cascade_size is not None and not of_crops:
        raise ClassifierError(f"detect.cascade_size: is for a fine-tuned classifier of crops; {another}")
    if config.second_look and (fast or of_crops):
        raise ClassifierError(f"detect.second_look: is for a head on stored features; {another}")


def image_scorer(folder: Path, config: DetectConfig, device: torch.device, bf16: bool) -> Scorer:
    """A Fast R-CNN at work, one that proposes or one that doesn't."""
    proposes = load_region_spec(folder).proposes
    network, spec = load_multibox_fast_rcnn(folder) if proposes else load_fast_rcnn(folder)
    return ImageScorer(
        network,
        scales=config.scales or spec.head.scales[-1:],
        max_side=spec.head.max_side,
        flip=config.flip,
        refine=spec.head.refine,
        device=device,
        bf16=bf16,
        compiled=config.compile,
        proposals=config.max_proposals,
    )


def frozen_scorer(folder: Path, config: DetectConfig, device: torch.device, bf16: bool) -> Scorer:
    """A head on the features of a frozen network at work."""
    network, spec = load_frozen(folder)
    extractor = extractor_of(network, spec, config, device, bf16)
    return FrozenScorer(network, extractor, second_look=config.second_look)


def crop_scorer(folder: Path, config: DetectConfig, device: torch.device, bf16: bool) -> Scorer:
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
        return whole
    return CascadeScorer(of_size(config.cascade_size), whole, keep=config.cascade_keep)


def extractor_of(
    network: FrozenClassifier, spec: FrozenSpec, config: DetectConfig, device: torch.device, bf16: bool
) -> RegionFeatures:
    """What gives a head on stored features those of other regions."""
    return RegionFeatures(
        network.backbone, spec.crops, spec.features, device=device, bf16=bf16, batch_size=config.batch_size
    )
