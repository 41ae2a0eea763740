"""A Fast R-CNN with what makes its weights usable; saved and loaded whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError, RegionSpec, read_description
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnHead, Pooling
from detpipe.heads.fast_rcnn.truncated_svd import split_linear
from detpipe.heads.region_head import BoxLoss, BoxRegression
from detpipe.network.network_folder import load_network_weights, save_network, stored_backbone
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import plain

KIND = "fast_rcnn"
"""The kind in a classifier.json."""


@dataclass(frozen=True)
class FastRcnnSpec(RegionSpec):
    """Beside what all classifiers of regions have: the head as trained, scales included.

    svd_ranks: of its two layers, where truncated SVD made each of them two thinner ones, 0 for one left as it was;
    empty where neither.
    """

    head: FastRcnnHead
    svd_ranks: tuple[int, ...] = ()


def build_fast_rcnn(spec: FastRcnnSpec, *, seed: int, pretrained: bool) -> FastRcnn:
    """The network of a spec, its backbone with its own weights or, where others will follow, with none."""
    config = spec.backbone if pretrained else dataclasses.replace(spec.backbone, weights="none", download=False)
    # weights=none draws from the global generator: it is lent for that, so that the weights are those of the seed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FastRcnn(create_backbone(config), len(spec.classes), spec.head, seed=seed)
    for name, rank in zip(("fc1", "fc2"), spec.svd_ranks, strict=False):
        if rank:
            layer = getattr(network, name)
            setattr(network, name, split_linear(layer.in_features, layer.out_features, rank))
    return network


def save_fast_rcnn(folder: Path, network: FastRcnn, spec: FastRcnnSpec, *, loaded_from: Path | None = None) -> None:
    """Write weights.safetensors and classifier.json into `folder`, each whole or not at all.

    loaded_from: the folder that the network came from, if any, with the text of its net of Caffe's.
    """
    save_network(folder, network, spec.backbone if loaded_from is None else stored_backbone(loaded_from, spec.backbone))
    write_json(folder / DESCRIPTION, {"kind": KIND, **plain(spec)})


def load_fast_rcnn_spec(folder: Path) -> FastRcnnSpec:
    """The description of the Fast R-CNN in `folder`. Raises ClassifierError naming what is wrong."""
    values = read_description(folder)
    if values.get("kind") != KIND:
        raise ClassifierError(
            f"{folder / DESCRIPTION}: wanted a Fast R-CNN's, which head={KIND} trains, got one of the kind "
            f"{values.get('kind', 'crops')}"
        )
    try:
        return _spec(values)
    except (ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{folder / DESCRIPTION}: wanted a Fast R-CNN's, got: {error}; train it again") from error


def load_fast_rcnn(folder: Path) -> tuple[FastRcnn, FastRcnnSpec]:
    """The network in evaluation mode on the CPU, and its spec. Raises ClassifierError naming what is wrong."""
    spec = load_fast_rcnn_spec(folder)
    own = dataclasses.replace(spec, backbone=stored_backbone(folder, spec.backbone))
    network = build_fast_rcnn(own, seed=0, pretrained=False)
    load_network_weights(folder, network)
    return network.eval(), spec


def _spec(values: dict[str, Any]) -> FastRcnnSpec:
    head = values["head"]
    chosen = {
        "box_regression": BoxRegression(head["box_regression"]),
        "box_loss": BoxLoss(head.get("box_loss", BoxLoss.smooth_l1)),  # older folders have none
        "pooling": Pooling(head["pooling"]),
    }
    return FastRcnnSpec(
        classes=tuple(str(name) for name in values["classes"]),
        category_ids=tuple(int(number) for number in values["category_ids"]),
        backbone=BackboneConfig(**values["backbone"]),
        head=FastRcnnHead(**{**head, **chosen}),
        svd_ranks=tuple(int(rank) for rank in values["svd_ranks"]),
    )
