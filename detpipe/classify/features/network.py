"""A classifier on stored features: a backbone that is never trained, and a head on its features of regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_from_seed
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.features.geometry import mirrored_geometry
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.features.store import FeatureStore
from detpipe.heads.stored.feature_head import Examples, FeatureHead, StoredHeadConfig
from detpipe.heads.table import head_class


@dataclass(frozen=True, kw_only=True)
class FeatureClassifierSpec(RegionSpec):
    """The description of a classifier on stored features.

    crops, features: what the backbone is shown of a region. head: the word of `head=`. extraction: the part of the
    store's key that says how features were computed.
    """

    KIND: ClassVar[str] = "features"

    crops: CropConfig
    box_regression: bool
    features: FeatureConfig
    head: str
    extraction: dict[str, Any]

    @property
    def computed_in_bf16(self) -> bool | None:
        """As the stored features were computed: other features would be another detector."""
        return bool(self.extraction["bf16"])


class FeatureClassifier(nn.Module):
    """The backbone and the head. `FeatureScorer` joins them: in training and evaluation features may come from disk."""

    def __init__(self, backbone: Backbone, head: FeatureHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.classifier = None
        self.head = head


def restore_feature_classifier(spec: FeatureClassifierSpec, state: Mapping[str, Tensor]) -> FeatureClassifier:
    """The network from its weights, whose shapes also say how large the head is.

    Raises ValueError for a description that does not fit them, RuntimeError for the weights of another network.
    """
    tensors = {name.removeprefix("head."): one for name, one in state.items() if name.startswith("head.")}
    settings = head_class(spec.head)
    if not issubclass(settings, StoredHeadConfig):
        raise ValueError(f"head={spec.head}: expected the word of a head on stored features")
    try:
        head = settings.MODULE(**tensors)
    except TypeError as error:
        raise RuntimeError(str(error)) from error
    if head.n_classes != len(spec.classes):
        raise ValueError(f"expected a head of {len(spec.classes)} classes, got one of {head.n_classes}")
    if len(head.box_weight) not in (0, head.n_classes):
        raise ValueError(f"expected box regression of {head.n_classes} classes, got {len(head.box_weight)}")
    network = FeatureClassifier(create_from_seed(spec.backbone, 0, pretrained=False), head)
    network.load_state_dict(dict(state))
    return network


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
