"""The folder of a trained classifier, of regions or of images: its weights, and the text of a net of Caffe's."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from detpipe.backbone.caffe.presets import find_prototxt
from detpipe.backbone.create import BackboneConfig
from detpipe.storage.atomic import replaced

DESCRIPTION = "classifier.json"
WEIGHTS = "weights.safetensors"
NET = "net.prototxt"
"""Beside the weights, where the backbone is a net of Caffe's."""


class ClassifierError(ValueError):
    """A classifier folder that is not there, not whole, or made for other classes."""


@dataclass(frozen=True)
class RegionSpec:
    """What every classifier of regions tells: classes in label order, COCO's numbers of them, the backbone."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    backbone: BackboneConfig


def read_description(folder: Path) -> dict[str, Any]:
    """The classifier.json of a folder; its "kind" says which classifier it is, and crops' (R-CNN's) has none.

    Raises ClassifierError where it is missing or no JSON object.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ClassifierError(f"{folder}: wanted a trained classifier, found no {DESCRIPTION}; run `detpipe train-cls`")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ClassifierError(f"{path}: wanted a classifier's description, got: {error}; train it again") from error
    if not isinstance(values, dict):
        raise ClassifierError(f"{path}: wanted a classifier's description, got {str(values)[:100]}; train it again")
    return values


def check_classes(spec: RegionSpec, classes: Sequence[str], where: str) -> None:
    """Raise ClassifierError unless the classes are those of the classifier, in the same order."""
    if tuple(classes) != spec.classes:
        unknown = sorted(set(classes) - set(spec.classes))
        detail = f"it doesn't know {unknown}" if unknown else "the order or number is another"
        raise ClassifierError(
            f"{where} has the classes {list(classes)}, the classifier {list(spec.classes)}: {detail}; "
            "give dataset.classes=[...] as it was trained, or train it on this data set"
        )


def save_network(folder: Path, network: nn.Module, backbone: BackboneConfig) -> None:
    """Write the weights, and the text of a net of Caffe's, each whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replaced(folder / WEIGHTS) as scratch:
        save_file(state, scratch)
    if backbone.prototxt is not None:
        with replaced(folder / NET) as scratch:
            shutil.copyfile(find_prototxt(backbone.prototxt), scratch)


def stored_backbone(folder: Path, backbone: BackboneConfig) -> BackboneConfig:
    """The backbone with its net's text as it was in training: the file that it came from may be another by now."""
    if backbone.prototxt is None or not (folder / NET).is_file():
        return backbone
    return dataclasses.replace(backbone, prototxt=str(folder / NET))


def load_network_weights(folder: Path, network: nn.Module) -> None:
    """Give the network its weights. Raises ClassifierError where they are not there, broken, or another network's."""
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ClassifierError(f"{folder / WEIGHTS}: wanted this classifier's weights: {error}") from error
