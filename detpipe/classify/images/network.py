"""A plain image classifier: a backbone and a softmax head; saved and loaded whole. No detection in it.

N: images, H, W: the input's size, K: classes, D: feature width.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_backbone, create_from_seed
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError
from detpipe.classify.images.settings import ViewConfig
from detpipe.heads.softmax import SoftmaxHead
from detpipe.network.network_folder import load_network_weights, save_network, stored_backbone
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import plain

KIND = "images"
"""What classifier.json says of itself: a region classifier's says nothing."""


class ImageClassifier(nn.Module):
    """(N, H, W, 3) uint8 RGB -> logits (N, K), column k for label k.

    head: from features (N, D) to logits: a new one, or the one that the backbone's weights brought.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.classifier = None  # it is the head, or no gradient would reach it
        self.dropout = nn.Dropout(dropout)
        self.head = head

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the images that it takes."""
        return self.backbone.spec.size

    def n_outputs(self) -> int:
        """K, whatever the head is made of: the width of the logits of no images."""
        with torch.inference_mode():
            return int(self(torch.zeros(0, *self.input_size, 3, dtype=torch.uint8)).shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, K)."""
        logits: Tensor = self.head(self.dropout(self.backbone(self.backbone.spec.to_input(images))))
        return logits


@dataclass(frozen=True)
class ImageClassifierSpec:
    """What makes the weights usable: the classes in label order, the backbone, and how it was shown images."""

    classes: tuple[str, ...]
    backbone: BackboneConfig
    view: ViewConfig


def new_classifier(spec: ImageClassifierSpec, *, dropout: float, seed: int, pretrained: bool) -> ImageClassifier:
    """The network of a spec with a new head drawn from `seed`; the backbone with its own weights, or with none."""
    config = spec.backbone if pretrained else dataclasses.replace(spec.backbone, weights="none", download=False)
    backbone = create_from_seed(config, seed)
    generator = torch.Generator().manual_seed(seed)
    head = SoftmaxHead(backbone.feature_width, len(spec.classes), generator=generator)
    return ImageClassifier(backbone, head, dropout=dropout)


def shipped_classifier(config: BackboneConfig) -> ImageClassifier:
    """The network as its weights come, with their own 1000 classes. Raises ValueError where they brought none."""
    backbone = create_backbone(config)
    if backbone.classifier is None:
        raise ValueError(
            f"backbone {config.name} with weights={config.weights}: wanted weights with a classifier, got none; "
            "train one with `detpipe train-cls db.train=DB`, and give its run_dir without backbone="
        )
    return ImageClassifier(backbone, backbone.classifier, dropout=0.0).eval()


def save_image_classifier(folder: Path, network: ImageClassifier, spec: ImageClassifierSpec) -> None:
    """Write weights.safetensors, classifier.json, and the text of a net of Caffe's into `folder`, each whole."""
    save_network(folder, network, spec.backbone)
    write_json(folder / DESCRIPTION, {"kind": KIND, **plain(spec)})


def is_of_images(description: Path) -> bool:
    """Whether a classifier.json is of a classifier of whole images; one that can't be read is not."""
    try:
        values = json.loads(description.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(values, dict) and values.get("kind") == KIND


def load_image_spec(folder: Path) -> ImageClassifierSpec:
    """The description of the classifier in `folder`. Raises ClassifierError naming what is wrong."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ClassifierError(
            f"{folder}: wanted a trained classifier, found no {DESCRIPTION}; run `detpipe train-cls db.train=DB`, "
            "or give backbone=NAME for one as it is shipped"
        )
    try:
        return _spec(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{path}: wanted a classifier of whole images, got: {error}; train it again") from error


def load_image_classifier(folder: Path) -> tuple[ImageClassifier, ImageClassifierSpec]:
    """The network in evaluation mode on the CPU, and its spec. Raises ClassifierError naming what is wrong."""
    spec = load_image_spec(folder)
    own = dataclasses.replace(spec, backbone=stored_backbone(folder, spec.backbone))
    network = new_classifier(own, dropout=0.0, seed=0, pretrained=False)
    load_network_weights(folder, network)
    return network.eval(), spec


def _spec(values: Any) -> ImageClassifierSpec:
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise ValueError("one of regions")
    return ImageClassifierSpec(
        classes=tuple(str(name) for name in values["classes"]),
        backbone=BackboneConfig(**values["backbone"]),
        view=ViewConfig(**values["view"]),
    )
