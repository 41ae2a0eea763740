"""The region classifier of R-CNN: a backbone, a softmax head and a class-wise box regressor; saved and loaded whole.

N: regions, S: side of a crop, K: classes, D: feature width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError, RegionSpec, read_description
from detpipe.classify.crops.settings import CropConfig, CropMode, Encoding
from detpipe.heads.bbox_regressor import BoxRegressor
from detpipe.heads.softmax import SoftmaxHead
from detpipe.network.network_folder import load_network_weights, save_network, stored_backbone
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import plain


class RegionClassifier(nn.Module):
    """(N, S, S, 3) uint8 RGB crops -> logits (N, K + 1) and deltas (N, K, 4), by one network.

    New layers start from `seed`; the backbone's weights are the caller's.
    """

    def __init__(self, backbone: Backbone, n_classes: int, *, box_regression: bool, dropout: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.backbone = backbone
        self.backbone.classifier = None  # ImageNet's own head, which no gradient would reach
        self.dropout = nn.Dropout(dropout)
        self.head = SoftmaxHead(backbone.feature_width, n_classes + 1, generator=generator)
        self.box_regressor = (
            BoxRegressor(backbone.feature_width, n_classes, generator=generator) if box_regression else None
        )

    def features(self, crops: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 -> (N, D)."""
        features: Tensor = self.backbone(self.backbone.spec.to_input(crops))
        return features

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K + 1), and deltas (N, K, 4) or None without box regression."""
        features = self.dropout(self.features(crops))
        return self.head(features), self.box_regressor(features) if self.box_regressor is not None else None


@dataclass(frozen=True)
class ClassifierSpec(RegionSpec):
    """What makes a classifier of crops usable: beside what all have, how it was shown regions."""

    crops: CropConfig
    box_regression: bool


def save_classifier(folder: Path, network: RegionClassifier, spec: ClassifierSpec) -> None:
    """Write weights.safetensors and classifier.json into `folder`, each whole or not at all.

    A net of Caffe's is put beside them, as its text.
    """
    save_network(folder, network, spec.backbone)
    write_json(folder / DESCRIPTION, plain(spec))


def load_spec(folder: Path) -> ClassifierSpec:
    """The description of the classifier in `folder`. Raises ClassifierError naming what is wrong."""
    path = folder / DESCRIPTION
    values = read_description(folder)
    try:
        if "kind" in values:
            raise ValueError(f"one of the kind {values['kind']}, that knows no crops of regions")
        return _spec(values)
    except (ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{path}: wanted a classifier's description, got: {error}; train it again") from error


def load_classifier(folder: Path) -> tuple[RegionClassifier, ClassifierSpec]:
    """The network in evaluation mode on the CPU, and its spec. Raises ClassifierError naming what is wrong."""
    spec = load_spec(folder)
    own = dataclasses.replace(spec, backbone=stored_backbone(folder, spec.backbone))
    network = build_classifier(own, dropout=0.0, seed=0, pretrained=False)
    load_network_weights(folder, network)
    return network.eval(), spec


def build_classifier(spec: ClassifierSpec, *, dropout: float, seed: int, pretrained: bool) -> RegionClassifier:
    """The network of a spec, its backbone with its own weights or, where others will follow, with none."""
    config = spec.backbone if pretrained else dataclasses.replace(spec.backbone, weights="none", download=False)
    # weights=none draws from the global generator: it is lent for that, so that the weights are those of the seed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RegionClassifier(
            create_backbone(config), len(spec.classes), box_regression=spec.box_regression, dropout=dropout, seed=seed
        )


def crop_config(values: dict[str, Any]) -> CropConfig:
    """A CropConfig from the JSON of a manifest. Raises ValueError, KeyError or TypeError where it is none."""
    return CropConfig(**{**values, "mode": CropMode(values["mode"]), "encoding": Encoding(values["encoding"])})


def _spec(values: dict[str, Any]) -> ClassifierSpec:
    return ClassifierSpec(
        classes=tuple(str(name) for name in values["classes"]),
        category_ids=tuple(int(number) for number in values["category_ids"]),
        backbone=BackboneConfig(**values["backbone"]),
        crops=crop_config(values["crops"]),
        box_regression=bool(values["box_regression"]),
    )
