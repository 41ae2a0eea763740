"""`detpipe train-cls head=svm`: a head on the features of a store, in seconds. features/train -> classifier/."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import torch

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import check_weights, create_from_seed, written_out
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import save_classifier
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.features.extractor import network_digest
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec, examples_of
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import FeatureStore, open_store
from detpipe.commands.stage_settings import TrainCls
from detpipe.datasets.source import Split
from detpipe.heads.region_head import BoxRegression
from detpipe.heads.stored.feature_head import StoredHeadConfig
from detpipe.heads.table import head_word
from detpipe.network.device import resolve_bf16
from detpipe.runs.detect_settings import carry_settings
from detpipe.runs.run_proposer import keep_proposer
from detpipe.storage.backup import backup_path, successor
from detpipe.storage.dataclass_json import from_json
from detpipe.storage.manifest import Artefact, ArtefactError, State, find_manifest

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
"""Heads on stored features train there, whatever `device` says."""


def run(config: TrainCls) -> None:
    """Train the head on the stored features, and save the classifier. An earlier one goes when this one stands.

    Raises ArtefactError where there are no features, or where another network made them.
    """
    assert isinstance(config.head, StoredHeadConfig)
    head, path = config.head, config.folder.features(Split.train)
    if find_manifest(path) is None:
        raise ArtefactError(
            f"{path}: not there, and this head trains on stored features; run `detpipe features` first, with the "
            "same data set and run_dir"
        )
    store = open_store(path)
    spec = described(store, config.backbone, head)
    bf16 = head.USES_BF16 and resolve_bf16(config.precision, CPU)
    artefact = Artefact(
        config.folder.classifier,
        stage="train-cls",
        settings={
            "classifier": spec,
            "head": head_word(head),
            "settings": head,
            "seed": config.seed,
            # The precision does not change the result of other heads, so it is not part of their key.
            **({"bf16": bf16} if head.USES_BF16 else {}),
        },
        inputs={"features": store.manifest.digest},
    )
    # Before room is made: a classifier that stands there is not lost to weights that are none.
    backbone_network = checked_backbone(store, spec.backbone, config.seed)
    if config.overwrite:
        artefact.refuse_foreign()
    if config.overwrite or artefact.begin(overwrite=False) is not State.COMPLETE:
        begun = time.perf_counter()
        trained = FeatureClassifier(backbone_network, head.train(examples_of(store), seed=config.seed, bf16=bf16))
        with successor(artefact):
            save_classifier(artefact.path, trained, spec)
            keep_proposer(config.folder, artefact.path)
            carry_settings(backup_path(artefact.path), artefact.path)  # so that heads are compared as they are
            artefact.finish(seconds=time.perf_counter() - begun, summary=trained_summary(store))
    logger.info(
        "train-cls: %s on %d stored regions of %d classes in %.1f s -> %s",
        head_word(head),
        artefact.manifest.summary["regions"],
        len(spec.classes),
        artefact.manifest.seconds,
        config.folder.classifier,
    )


def described(store: FeatureStore, backbone: BackboneConfig, head: StoredHeadConfig) -> FeatureClassifierSpec:
    """The description of the classifier that a store makes."""
    extraction: dict[str, Any] = store.manifest.settings["extraction"]
    # What pixels are stored as has no part in features: the defaults stand for it.
    crops = from_json(extraction["crops"], CropConfig, f"{store.path}: crops")
    return FeatureClassifierSpec(
        classes=store.classes,
        category_ids=store.category_ids,
        backbone=replace(written_out(backbone), input_size=crops.size),
        crops=crops,
        box_regression=head.box_regression is not BoxRegression.none,
        head=head_word(head),
        features=from_json(extraction["features"], FeatureConfig, f"{store.path}: features"),
        extraction=extraction,
    )


def checked_backbone(store: FeatureStore, config: BackboneConfig, seed: int) -> Backbone:
    """The network that made the features. Raises ArtefactError where the configured one is another, and as
    `check_weights`."""
    check_weights(config)
    backbone = create_from_seed(config, seed)
    wanted = store.manifest.settings["extraction"]["network"]
    if network_digest(backbone) != wanted:
        raise ArtefactError(
            f"{store.path}: its features were made by a network with other weights than backbone={config.name}, "
            f"weights={config.weights}; give the backbone settings of `detpipe features`, or run it with overwrite=true"
        )
    return backbone


def trained_summary(store: FeatureStore) -> dict[str, Any]:
    """Numbers for people: the regions by class."""
    counts = {name: int((store.labels == label).sum()) for label, name in enumerate(store.classes, start=1)}
    return {"regions": len(store), "labels": {"background": int((store.labels == 0).sum()), **counts}}
