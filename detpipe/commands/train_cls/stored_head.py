"""`detpipe train-cls head=svm` and other heads: train a head on stored features: features/train -> classifier/."""

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
from detpipe.console import RESULT, amount
from detpipe.datasets.source import Split
from detpipe.heads.region_head import BoxRegression
from detpipe.heads.stored.feature_head import StoredHeadConfig
from detpipe.heads.table import head_word
from detpipe.network.device import resolve_bf16
from detpipe.plugins import package_versions
from detpipe.runs.detect_settings import carry_settings
from detpipe.runs.run_proposer import keep_proposer
from detpipe.storage.backup import backup_path, successor
from detpipe.storage.dataclass_json import from_json
from detpipe.storage.manifest import Artefact, ArtefactError, State, find_manifest

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
"""Heads on stored features always train on the CPU; `device` is not used."""


def run(config: TrainCls) -> None:
    """Train the head on the stored features, and save the classifier. An earlier one is deleted only after that.

    Raises ArtefactError if there are no features, or if they are of another network.
    """
    assert isinstance(config.head, StoredHeadConfig)
    head, path = config.head, config.folder.features(Split.train)
    if find_manifest(path) is None:
        raise ArtefactError(
            f"{path}: expected stored features to train the head on, got none; run `detpipe features` first, with the "
            "same data set and run_dir"
        )
    store = open_store(path)
    spec = describe(store, config.backbone, head)
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
        inputs={"features": store.manifest.digest, **package_versions(head_word(head))},
    )
    # Loaded before the old classifier is replaced: it must not be lost if the weights are missing.
    backbone_network = checked_backbone(store, spec.backbone, config.seed)
    if config.overwrite:
        artefact.refuse_foreign()
    if config.overwrite or artefact.begin(overwrite=False) is not State.COMPLETE:
        begun = time.perf_counter()
        trained = FeatureClassifier(backbone_network, head.train(examples_of(store), seed=config.seed, bf16=bf16))
        with successor(artefact):
            save_classifier(artefact.path, trained, spec)
            keep_proposer(config.folder, artefact.path)
            carry_settings(backup_path(artefact.path), artefact.path)  # heads are compared with equal settings
            artefact.finish(seconds=time.perf_counter() - begun, summary=trained_summary(store))
    logger.log(
        RESULT,
        "train-cls: %s on %s of %s in %.1f s -> %s",
        head_word(head),
        amount(artefact.manifest.summary["regions"], "stored regions"),
        amount(len(spec.classes), "classes"),
        artefact.manifest.seconds,
        config.folder.classifier,
    )


def describe(store: FeatureStore, backbone: BackboneConfig, head: StoredHeadConfig) -> FeatureClassifierSpec:
    """Return the description of the classifier trained on a store."""
    extraction: dict[str, Any] = store.manifest.settings["extraction"]
    # The encoding of stored crops is not part of the features, so it has its defaults.
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
    """Return the network that made the features.

    Raises ArtefactError if the settings give another network, and as `check_weights`.
    """
    check_weights(config)
    backbone = create_from_seed(config, seed)
    wanted = store.manifest.settings["extraction"]["network"]
    if network_digest(backbone) != wanted:
        raise ArtefactError(
            f"{store.path}: expected features of {config.name} with the weights {config.weights}, got features "
            "of another network; give the backbone settings of `detpipe features`, or run it with overwrite=true"
        )
    return backbone


def trained_summary(store: FeatureStore) -> dict[str, Any]:
    """Return the summary of the manifest: the number of regions by class."""
    counts = {name: int((store.labels == label).sum()) for label, name in enumerate(store.classes, start=1)}
    return {"regions": len(store), "labels": {"background": int((store.labels == 0).sum()), **counts}}
