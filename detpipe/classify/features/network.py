"""A classifier on stored features: a frozen backbone, and a head on its region features."""

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
from detpipe.storage.dataclass_json import from_json
from detpipe.structures import Int64Array


@dataclass(frozen=True, kw_only=True)
class FeatureClassifierSpec(RegionSpec):
    """The description of a classifier on stored features.

    crops, features: the inputs of the backbone for a region. head: the value of `head=`. extraction: the part of the
    store's settings that defines how features are computed.
    """

    KIND: ClassVar[str] = "features"

    crops: CropConfig
    box_regression: bool
    features: FeatureConfig
    head: str
    extraction: dict[str, Any]

    @property
    def computed_in_bf16(self) -> bool | None:
        """Whether the stored features were computed in bf16. Inference must use the same precision."""
        return bool(self.extraction["bf16"])


class FeatureClassifier(nn.Module):
    """The backbone and the head. `FeatureScorer` connects them; training and evaluation can read features from disk."""

    def __init__(self, backbone: Backbone, head: FeatureHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.classifier = None
        self.head = head

    @property
    def attention_layers(self) -> int:
        """The number of layers of attention among the regions of an image."""
        return self.head.attention_layers


def restore_feature_classifier(spec: FeatureClassifierSpec, state: Mapping[str, Tensor]) -> FeatureClassifier:
    """Restore the network from its weights. Their shapes also give the size of the head.

    Raises ValueError if the description does not match the weights, and RuntimeError for weights of another network.
    """
    tensors = {name.removeprefix("head."): one for name, one in state.items() if name.startswith("head.")}
    settings = head_class(spec.head)
    if not issubclass(settings, StoredHeadConfig):
        raise ValueError(
            f"head={spec.head}: expected a head on stored features, got another kind; train the classifier again"
        )
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


def examples_of(store: FeatureStore, rows: Int64Array | None = None) -> Examples:
    """The training examples of a head: the store in memory, in float32. Each view of a region is one example.

    rows: of the store; default, all.
    """
    settings = store.manifest.settings["extraction"]["features"]
    views = from_json(settings, FeatureConfig, f"{store.path}: features").views
    width = store.features.shape[1] // len(views)
    # torch converts float16: numpy takes several times as long.
    chosen: Any = slice(None) if rows is None else rows
    columns = (store.features[:, view * width :][:, :width] for view in range(len(views)))
    parts = [torch.from_numpy(np.array(column[chosen])) for column in columns]
    mirror = np.array([-1, 1, 1, 1], dtype=np.float32)
    geometry, deltas = store.geometry[chosen], store.deltas[chosen]
    return Examples(
        features=torch.cat(parts).float().numpy(),
        geometry=np.concatenate([mirrored_geometry(geometry) if one else geometry for one in views]),
        labels=np.tile(store.labels[chosen], len(views)),
        ious=np.tile(store.ious[chosen], len(views)),
        deltas=np.concatenate([deltas * mirror if one else deltas for one in views]),
        class_ious=np.tile(store.class_ious[chosen], (len(views), 1)),
        classes=store.classes,
        sets=np.concatenate([store.images[chosen] + view * len(store.spans) for view in range(len(views))]),
    )
