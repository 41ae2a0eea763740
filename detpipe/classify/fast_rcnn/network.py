"""The description of a Fast R-CNN, and the network that is built from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from detpipe.backbone.create import create_from_seed, seeded
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.fast_rcnn.truncated_svd import split_linear


@dataclass(frozen=True, kw_only=True)
class FastRcnnSpec(RegionSpec):
    """The description of a Fast R-CNN.

    head: its training settings, including the scales. svd_ranks: ranks of the two fully connected layers after
    truncated SVD, 0 for an uncompressed layer; empty if neither is compressed.
    """

    KIND: ClassVar[str] = "fast_rcnn"

    head: FastRcnnConfig
    svd_ranks: tuple[int, ...] = ()


def build_fast_rcnn(spec: FastRcnnSpec, *, seed: int, pretrained: bool) -> FastRcnn:
    """Build the network of a description.

    pretrained: load the backbone's pretrained weights; else they are loaded later.
    """
    backbone = create_from_seed(spec.backbone, seed, pretrained=pretrained)
    with seeded(seed):
        network = FastRcnn(backbone, len(spec.classes), spec.head, seed=seed)
        for name, rank in zip(("fc1", "fc2"), spec.svd_ranks, strict=False):
            if rank:
                layer = getattr(network, name)
                setattr(network, name, split_linear(layer.in_features, layer.out_features, rank))
    return network
