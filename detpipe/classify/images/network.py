"""A classifier of whole images: a backbone and a softmax head. It is not part of a detector.

N: images, H, W: the input's size, K: classes, D: feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_backbone, create_from_seed, seeded
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import ClassifierSpec
from detpipe.classify.images.settings import ViewConfig
from detpipe.heads.softmax import SoftmaxHead


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


@dataclass(frozen=True, kw_only=True)
class ImageClassifierSpec(ClassifierSpec):
    """The description of a classifier of whole images. view: crop and augmentation of the images that it is shown."""

    KIND: ClassVar[str] = "images"

    view: ViewConfig


def build_image_classifier(
    spec: ImageClassifierSpec, *, seed: int, pretrained: bool, dropout: float = 0.0
) -> ImageClassifier:
    """The network of a description, with a new head drawn from `seed`.

    pretrained: the backbone gets its own weights; else they are loaded later.
    """
    backbone = create_from_seed(spec.backbone, seed, pretrained=pretrained)
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        head = SoftmaxHead(backbone.feature_width, len(spec.classes), generator=generator)
    return ImageClassifier(backbone, head, dropout=dropout)


def shipped_classifier(config: BackboneConfig) -> ImageClassifier:
    """The network as its weights come, with their own 1000 classes. Raises ValueError where they brought none."""
    backbone = create_backbone(config)
    if backbone.classifier is None:
        raise ValueError(
            f"backbone {config.name} with weights={config.weights}: expected weights with a classifier, got none; "
            "train one with `detpipe train-cls db.train=DB`, and give its run_dir without backbone="
        )
    return ImageClassifier(backbone, backbone.classifier, dropout=0.0).eval()
