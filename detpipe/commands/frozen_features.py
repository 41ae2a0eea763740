"""The stored features of a run of any kind: its own, or a frozen network's, computed when they are needed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import FeatureStore, open_store
from detpipe.classify.labeling import SamplingConfig
from detpipe.classify.settings import DetectConfig
from detpipe.commands import features
from detpipe.commands.stage_settings import Features
from detpipe.datasets.source import Split
from detpipe.network.settings import Precision
from detpipe.runs.command import Command
from detpipe.runs.run_folder import RunFolder, copy_proposals, dataset_digest
from detpipe.storage.manifest import ArtefactError, find_manifest
from detpipe.structures import Dataset

logger = logging.getLogger(__name__)

MOST_REGIONS = 500
"""Regions of a test image, and proposals of a training image that its regions are sampled from."""


def stores_of_run(
    config: Command, splits: Mapping[Split, Dataset], backbone: BackboneConfig, precision: Precision
) -> dict[Split, FeatureStore]:
    """Return the feature stores of the train and the test split: features/ of the run, else frozen/features/.

    The latter are computed from the run's proposals if they are missing, as experiment=rcnn_frozen does, which needs
    some minutes. backbone, precision: for them. Raises ArtefactError if the run has no proposals, and for features of
    other images or objects.
    """
    folder = config.folder
    if find_manifest(folder.features(Split.train)) is None:
        folder = frozen_folder(folder)
        make_frozen(config, folder, backbone, precision)
    stores = {}
    for split in (Split.train, Split.test):
        stores[split] = open_store(folder.features(split))
        if stores[split].manifest.inputs.get(split.value) != dataset_digest(splits[split]):
            raise ArtefactError(
                f"{stores[split].path}: expected features of the data set {splits[split].name}, got features of other "
                "images, objects or classes; give the dataset settings of the run, or run `detpipe features` with "
                "overwrite=true"
            )
    return stores


def frozen_folder(folder: RunFolder) -> RunFolder:
    """The run folder of features that do not belong to the run's own detector."""
    return RunFolder(folder.path / "frozen")


def make_frozen(config: Command, folder: RunFolder, backbone: BackboneConfig, precision: Precision) -> None:
    """Compute the features of a frozen network, unless they are there."""
    if find_manifest(config.folder.proposals) is None:
        raise ArtefactError(
            f"{config.folder.proposals}: expected proposals to compute features of, got none; run `detpipe propose` "
            "with the same dataset and run_dir"
        )
    logger.info("%s has no stored features: computing features of a frozen network", config.folder.path)
    folder.path.mkdir(parents=True, exist_ok=True)
    copy_proposals(config.folder, folder)
    shared: dict[str, Any] = {one.name: getattr(config, one.name) for one in fields(Command)}
    features.run(
        Features(
            **{**shared, "run_dir": str(folder.path), "dataset": config.data_source},
            backbone=backbone,
            precision=precision,
            features=FeatureConfig(crops=False, mirrored=True),
            sampling=SamplingConfig(regions_per_image=150, max_proposals=MOST_REGIONS),
            detect=DetectConfig(max_proposals=MOST_REGIONS),
        )
    )
