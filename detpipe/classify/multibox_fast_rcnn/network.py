"""The description of MultiBox and Fast R-CNN on shared feature maps, and the network that is built from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from detpipe.backbone.create import create_from_seed, seeded
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox.priors import Numbers, as_shapes
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn


@dataclass(frozen=True, kw_only=True)
class MultiBoxFastRcnnSpec(RegionSpec):
    """The description of such a network. head: its training settings. shapes: shapes of the priors of each map."""

    KIND: ClassVar[str] = "multibox_fast_rcnn"
    PROPOSES: ClassVar[bool] = True

    head: MultiBoxFastRcnnConfig
    shapes: Numbers


def build_multibox_fast_rcnn(spec: MultiBoxFastRcnnSpec, *, seed: int, pretrained: bool) -> MultiBoxFastRcnn:
    """Build the network of a description.

    pretrained: load the backbone's pretrained weights; else they are loaded later.
    """
    backbone = create_from_seed(spec.backbone, seed, pretrained=pretrained)
    with seeded(seed):
        return MultiBoxFastRcnn(backbone, len(spec.classes), spec.head, as_shapes(spec.shapes), seed=seed)
