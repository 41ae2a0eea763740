"""A MultiBox and Fast R-CNN on shared maps with what makes its weights usable; saved and loaded whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.backbone.create import create_from_seed
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError, RegionSpec, read_description
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnHead, Pooling
from detpipe.heads.multibox.priors import Numbers, as_numbers, as_shapes
from detpipe.heads.multibox.settings import MultiBoxTargets, with_kinds
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.heads.region_head import BoxLoss, BoxRegression
from detpipe.network.network_folder import load_network_weights, save_network, stored_backbone
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import plain

KIND = "multibox_fast_rcnn"
"""The kind in a classifier.json."""


@dataclass(frozen=True)
class MultiBoxFastRcnnSpec(RegionSpec):
    """Beside what all classifiers of regions have: the head as trained, and the priors' shapes by map."""

    head: MultiBoxFastRcnnHead
    shapes: Numbers

    @property
    def proposes(self) -> bool:
        """Its own maps say where things might be."""
        return True


def build_multibox_fast_rcnn(spec: MultiBoxFastRcnnSpec, *, seed: int, pretrained: bool) -> MultiBoxFastRcnn:
    """The network of a spec, its backbone with its own weights or, where others will follow, with none."""
    config = spec.backbone if pretrained else dataclasses.replace(spec.backbone, weights="none", download=False)
    backbone = create_from_seed(config, seed)
    return MultiBoxFastRcnn(backbone, len(spec.classes), spec.head, as_shapes(spec.shapes), seed=seed)


def save_multibox_fast_rcnn(folder: Path, network: MultiBoxFastRcnn, spec: MultiBoxFastRcnnSpec) -> None:
    """Write weights.safetensors and classifier.json into `folder`, each whole or not at all."""
    save_network(folder, network, spec.backbone)
    write_json(folder / DESCRIPTION, {"kind": KIND, **plain(spec)})


def load_multibox_fast_rcnn_spec(folder: Path) -> MultiBoxFastRcnnSpec:
    """The description of the network in `folder`. Raises ClassifierError naming what is wrong."""
    values = read_description(folder)
    if values.get("kind") != KIND:
        raise ClassifierError(
            f"{folder / DESCRIPTION}: wanted what head={KIND} trains, got one of the kind {values.get('kind', 'crops')}"
        )
    try:
        return _spec(values)
    except (ValueError, KeyError, TypeError) as error:
        raise ClassifierError(
            f"{folder / DESCRIPTION}: wanted a MultiBox and Fast R-CNN's, got: {error}; train it again"
        ) from error


def load_multibox_fast_rcnn(folder: Path) -> tuple[MultiBoxFastRcnn, MultiBoxFastRcnnSpec]:
    """The network in evaluation mode on the CPU, and its spec.

    Raises ClassifierError or NetworkFolderError naming what is wrong.
    """
    spec = load_multibox_fast_rcnn_spec(folder)
    own = dataclasses.replace(spec, backbone=stored_backbone(folder, spec.backbone))
    try:
        network = build_multibox_fast_rcnn(own, seed=0, pretrained=False)
    except ValueError as error:
        raise ClassifierError(f"{folder / DESCRIPTION}: no network can be made of it: {error}") from error
    load_network_weights(folder, network)
    return network.eval(), spec


def _spec(values: dict[str, Any]) -> MultiBoxFastRcnnSpec:
    head = values["head"]
    made = {
        "box_regression": BoxRegression(head["box_regression"]),
        "box_loss": BoxLoss(head.get("box_loss", BoxLoss.smooth_l1)),  # older folders have none
        "pooling": Pooling(head["pooling"]),
        "multibox": MultiBoxTargets(**with_kinds(head["multibox"])),
    }
    return MultiBoxFastRcnnSpec(
        classes=tuple(str(name) for name in values["classes"]),
        category_ids=tuple(int(number) for number in values["category_ids"]),
        backbone=BackboneConfig(**values["backbone"]),
        head=MultiBoxFastRcnnHead(**{**head, **made}),
        shapes=as_numbers(as_shapes(values["shapes"])),
    )
