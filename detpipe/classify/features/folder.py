"""A region classifier whose backbone stays as it is: the features of a store and a head on them; saved and loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_from_seed
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError, read_description
from detpipe.classify.crops.network import ClassifierSpec, crop_config
from detpipe.classify.features.geometry import mirrored_geometry
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import FeatureStore
from detpipe.heads.stored.feature_head import Examples, FeatureHead
from detpipe.heads.stored.linear_svm import LinearHead
from detpipe.heads.stored.nearest_neighbours import NeighboursHead
from detpipe.heads.stored.prototypes import PrototypeHead
from detpipe.heads.stored.softmax_regression import SoftmaxRegression
from detpipe.heads.stored.two_layers import TwoLayerHead
from detpipe.heads.stored.zero_shot import ZeroShotHead
from detpipe.network.network_folder import WEIGHTS, save_network, stored_backbone
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import plain

KIND = "features"
"""What classifier.json calls it."""

HEADS: Mapping[str, type[FeatureHead]] = {
    "linear": LinearHead,
    "softmax": SoftmaxRegression,
    "two_layers": TwoLayerHead,
    "neighbours": NeighboursHead,
    "prototypes": PrototypeHead,
    "zero_shot": ZeroShotHead,
}
"""The heads that a folder may hold, by the names that classifier.json gives them."""


@dataclass(frozen=True)
class FrozenSpec(ClassifierSpec):
    """What makes the weights usable: as ClassifierSpec, and what of a region is seen; extraction: the store's key."""

    features: FeatureConfig
    extraction: dict[str, Any]


class FrozenClassifier(nn.Module):
    """The backbone and the head. The two meet in `FrozenScorer`: features may come from disk."""

    def __init__(self, backbone: Backbone, head: FeatureHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.classifier = None
        self.head = head


def examples_of(store: FeatureStore) -> Examples:
    """What a head learns from: the store in memory, in float32; each view of a region is an example."""
    views = FeatureConfig(**store.manifest.settings["extraction"]["features"]).views
    width = store.features.shape[1] // len(views)
    # numpy takes several times as long to convert float16.
    parts = [torch.from_numpy(np.array(store.features[:, place * width :][:, :width])) for place in range(len(views))]
    turned = np.array([-1, 1, 1, 1], dtype=np.float32)
    return Examples(
        features=torch.cat(parts).float().numpy(),
        geometry=np.concatenate([mirrored_geometry(store.geometry) if one else store.geometry for one in views]),
        labels=np.tile(store.labels, len(views)),
        ious=np.tile(store.ious, len(views)),
        deltas=np.concatenate([store.deltas * turned if one else store.deltas for one in views]),
        class_ious=np.tile(store.class_ious, (len(views), 1)),
        classes=store.classes,
    )


def save_frozen(folder: Path, network: FrozenClassifier, spec: FrozenSpec, *, loaded_from: Path | None = None) -> None:
    """Write weights.safetensors and classifier.json into `folder`, each whole or not at all.

    loaded_from: the folder that the network came from, if any, with the text of its net of Caffe's.
    """
    save_network(folder, network, spec.backbone if loaded_from is None else stored_backbone(loaded_from, spec.backbone))
    kind = next(name for name, made in HEADS.items() if type(network.head) is made)
    write_json(folder / DESCRIPTION, {"kind": KIND, "head": kind, **plain(spec)})


def load_frozen_spec(folder: Path) -> FrozenSpec:
    """The description of the classifier in `folder`. Raises ClassifierError naming what is wrong."""
    values = read_description(folder)
    try:
        if values.get("kind") != KIND:
            raise ValueError("one that trains with its backbone")
        return FrozenSpec(
            classes=tuple(str(name) for name in values["classes"]),
            category_ids=tuple(int(number) for number in values["category_ids"]),
            backbone=BackboneConfig(**values["backbone"]),
            crops=crop_config(values["crops"]),
            box_regression=bool(values["box_regression"]),
            features=FeatureConfig(**values["features"]),
            extraction=dict(values["extraction"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClassifierError(
            f"{folder / DESCRIPTION}: wanted a classifier on stored features, got: {error}; "
            "train one: detpipe train-cls head=svm"
        ) from error


def load_frozen(folder: Path) -> tuple[FrozenClassifier, FrozenSpec]:
    """The network in evaluation mode on the CPU, and its spec. Raises ClassifierError naming what is wrong."""
    spec = load_frozen_spec(folder)
    config = dataclasses.replace(stored_backbone(folder, spec.backbone), weights="none", download=False)
    try:
        kind = read_description(folder)["head"]
        state = load_file(folder / WEIGHTS)
        tensors = {name.removeprefix("head."): one for name, one in state.items() if name.startswith("head.")}
        network = FrozenClassifier(create_from_seed(config, 0), HEADS[kind](**tensors))
        network.load_state_dict(state)
        _check_head(network.head, spec)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ClassifierError(f"{folder / WEIGHTS}: wanted this classifier's weights: {error}") from error
    return network.eval(), spec


def _check_head(head: FeatureHead, spec: FrozenSpec) -> None:
    if head.n_classes != len(spec.classes):
        raise ValueError(f"wanted a head of {len(spec.classes)} classes, got one of {head.n_classes}")
    if len(head.box_weight) not in (0, head.n_classes):
        raise ValueError(f"wanted the box regression of {head.n_classes} classes, got {len(head.box_weight)}")
