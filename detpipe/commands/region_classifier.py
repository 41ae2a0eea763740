"""The trained classifier of a run folder, of whichever kind: what it tells of itself, and at work."""

from __future__ import annotations

from pathlib import Path

import torch

from detpipe.classify import fast_rcnn_classifier, frozen_classifier
from detpipe.classify.classifier import load_classifier, load_spec
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError, RegionSpec, read_description
from detpipe.classify.detect import DetectConfig, RegionScorer, Scorer
from detpipe.classify.device import resolve_bf16
from detpipe.classify.fast_rcnn_classifier import load_fast_rcnn, load_fast_rcnn_spec
from detpipe.classify.frozen_classifier import FrozenScorer, load_frozen, load_frozen_spec
from detpipe.classify.image_scorer import ImageScorer
from detpipe.classify.region_features import RegionFeatures


def load_region_spec(folder: Path) -> RegionSpec:
    """Classes and backbone of the classifier in `folder`. Raises ClassifierError where there is none of regions."""
    match read_description(folder).get("kind"):
        case None:
            return load_spec(folder)
        case fast_rcnn_classifier.KIND:
            return load_fast_rcnn_spec(folder)
        case frozen_classifier.KIND:
            return load_frozen_spec(folder)
        case other:
            raise ClassifierError(
                f"{folder / DESCRIPTION}: wanted a classifier of regions, got one of whole {other}, made by train-cls "
                "db.train=DB, that knows no regions"
            )


def load_scorer(folder: Path, config: DetectConfig, device: torch.device) -> tuple[Scorer, RegionSpec]:
    """The classifier at work on a device, and its spec. Raises as `load_region_spec`."""
    bf16 = resolve_bf16(config.precision, device)
    if isinstance(load_region_spec(folder), fast_rcnn_classifier.FastRcnnSpec):
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
        raise ClassifierError(f"detect.scales, detect.flip: go with a Fast R-CNN; {folder} holds another classifier")
    if isinstance(load_region_spec(folder), frozen_classifier.FrozenSpec):
        frozen, frozen_spec = load_frozen(folder)
        extractor = RegionFeatures(
            frozen.backbone,
            frozen_spec.crops,
            frozen_spec.features,
            device=device,
            bf16=bf16,
            batch_size=config.batch_size,
        )
        return FrozenScorer(frozen, extractor), frozen_spec
    of_crops, crops_spec = load_classifier(folder)
    return RegionScorer(
        of_crops,
        crops_spec.crops,
        device=device,
        bf16=bf16,
        compiled=config.compile,
        batch_size=config.batch_size,
    ), crops_spec
