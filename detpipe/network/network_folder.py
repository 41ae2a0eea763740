"""Saving and loading a trained network: a folder with its weights and, for a Caffe net, its prototxt."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from detpipe.backbone.settings import BackboneConfig
from detpipe.storage.atomic import replaced

if TYPE_CHECKING:
    from torch import Tensor, nn

# Torch is imported where weights are read or written: the description of a classifier is read without it.

WEIGHTS = "weights.safetensors"
NET = "net.prototxt"
"""The prototxt, saved next to the weights if the backbone is a Caffe net."""


class NetworkFolderError(ValueError):
    """The folder of a trained network is missing, incomplete, or holds another network."""


def save_network(folder: Path, network: nn.Module, backbone: BackboneConfig) -> None:
    """Write the weights and, for a Caffe net, the prototxt. Each file is written atomically."""
    from detpipe.storage.tensor_file import write_safetensors

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_safetensors(folder / WEIGHTS, state)
    if backbone.prototxt is not None:
        from detpipe.backbone.caffe.presets import find_prototxt

        with replaced(folder / NET) as scratch:
            shutil.copyfile(find_prototxt(backbone.prototxt), scratch)


def stored_backbone(folder: Path, backbone: BackboneConfig) -> BackboneConfig:
    """The settings with the saved prototxt in place of the original file, which may have changed since training."""
    if backbone.prototxt is None or not (folder / NET).is_file():
        return backbone
    return dataclasses.replace(backbone, prototxt=str(folder / NET))


def load_network_weights(folder: Path, network: nn.Module) -> None:
    """Load the weights in `folder` into the network. Raises NetworkFolderError if they are missing or do not fit."""
    try:
        network.load_state_dict(read_network_weights(folder))
    except RuntimeError as error:
        raise NetworkFolderError(f"{folder / WEIGHTS}: expected the weights of this network: {error}") from error


def read_network_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in `folder` by name. Raises NetworkFolderError if they are missing or unreadable."""
    from detpipe.backbone.weights import read_state

    try:
        return read_state(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise NetworkFolderError(f"{folder / WEIGHTS}: expected the weights of a network: {error}") from error
