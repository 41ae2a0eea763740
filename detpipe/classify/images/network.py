"""An image classifier: a backbone and a softmax head. It is not part of a detector.

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

    head: maps features (N, D) to logits. It is new, or part of the backbone's pretrained weights.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.classifier = None  # used as `head`, or unused; then it would get no gradient
        self.dropout = nn.Dropout(dropout)
        self.head = head

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input images."""
        return self.backbone.spec.size

    def n_outputs(self) -> int:
        """K. It is read from the logits of an empty batch, so that any kind of head works."""
        with torch.inference_mode():
            return int(self(torch.zeros(0, *self.input_size, 3, dtype=torch.uint8)).shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, K)."""
        logits: Tensor = self.head(self.dropout(self.backbone(self.backbone.spec.to_input(images))))
        return logits


@dataclass(frozen=True, kw_only=True)
class ImageClassifierSpec(ClassifierSpec):
    """The description of an image classifier.

    view: crop and augmentation of its input images. resize: how `make-db` resized the images of the training database,
    as "256x256"; new photos are resized in the same way. grey: whether it stored them with one channel.
    """

    KIND: ClassVar[str] = "images"

    view: ViewConfig
    resize: str = "none"
    grey: bool = False


def build_image_classifier(
    spec: ImageClassifierSpec, *, seed: int, pretrained: bool, dropout: float = 0.0
) -> ImageClassifier:
    """Build the network of a description, with a new head initialised from `seed`.

    pretrained: load the backbone's pretrained weights; else they are loaded later.
    """
    backbone = create_from_seed(spec.backbone, seed, pretrained=pretrained)
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        head = SoftmaxHead(backbone.feature_width, len(spec.classes), generator=generator)
    return ImageClassifier(backbone, head, dropout=dropout)


def shipped_classifier(config: BackboneConfig) -> ImageClassifier:
    """The pretrained network with its own 1000 classes. Raises ValueError if the weights have no classifier."""
    backbone = create_backbone(config)
    if backbone.classifier is None:
        raise ValueError(
            f"{config.name} with backbone.weights={config.weights}: expected weights with a classifier, got none; "
            "train one with `detpipe train-cls db.train=DB`, and give its run_dir without backbone="
        )
    return ImageClassifier(backbone, backbone.classifier, dropout=0.0).eval()
