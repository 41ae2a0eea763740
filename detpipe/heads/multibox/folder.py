"""Saving and loading a trained MultiBox: the weights and their description."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from detpipe.backbone.create import create_from_seed, seeded
from detpipe.backbone.settings import BackboneConfig
from detpipe.heads.multibox.network import MultiBox
from detpipe.heads.multibox.priors import Numbers, as_shapes
from detpipe.heads.multibox.settings import MultiBoxConfig
from detpipe.network.network_folder import NetworkFolderError, load_network_weights, save_network, stored_backbone
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, read_dataclass
from detpipe.storage.manifest import plain

DESCRIPTION = "multibox.json"


@dataclass(frozen=True)
class MultiBoxSpec:
    """The settings of backbone and head, and the prior shapes of each map.

    A shape is a box (x1, y1, x2, y2) relative to the centre of its cell, in pixels of the input.
    """

    backbone: BackboneConfig
    multibox: MultiBoxConfig
    shapes: Numbers


def build_multibox(spec: MultiBoxSpec, *, seed: int, pretrained: bool) -> MultiBox:
    """Build the network of a spec. pretrained: load the backbone's own weights; false if others are loaded later."""
    backbone = create_from_seed(spec.backbone, seed, pretrained=pretrained)
    with seeded(seed):
        return MultiBox(backbone, spec.multibox, as_shapes(spec.shapes), seed=seed)


def save_multibox(folder: Path, network: MultiBox, spec: MultiBoxSpec) -> None:
    """Write weights.safetensors and multibox.json into `folder`. Each file is written atomically."""
    save_network(folder, network, spec.backbone)
    write_json(folder / DESCRIPTION, plain(spec))


def load_multibox_spec(folder: Path) -> MultiBoxSpec:
    """Read the description of the MultiBox in `folder`. Raises NetworkFolderError, which names the file and the key."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise NetworkFolderError(
            f"{folder}: expected a trained MultiBox, got a folder without {DESCRIPTION}; run `detpipe train-multibox` "
            "and pass the folder multibox/ of its run folder"
        )
    try:
        return read_dataclass(path, MultiBoxSpec)
    except DataclassJsonError as error:
        raise NetworkFolderError(f"{error}; train it again") from error


def load_multibox(folder: Path) -> tuple[MultiBox, MultiBoxSpec]:
    """Load the network, in evaluation mode on the CPU, and its spec. Raises NetworkFolderError if that fails."""
    spec = load_multibox_spec(folder)
    own = dataclasses.replace(spec, backbone=stored_backbone(folder, spec.backbone))
    try:
        network = build_multibox(own, seed=0, pretrained=False)
    except ValueError as error:
        raise NetworkFolderError(f"{folder / DESCRIPTION}: expected the settings of a network: {error}") from error
    load_network_weights(folder, network)
    return network.eval(), spec
