"""A small network of each kind of classifier, all on the same net of two convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from detpipe.backbone.create import create_from_seed
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import ClassifierSpec
from detpipe.classify.crops.network import RcnnSpec, build_rcnn
from detpipe.classify.crops.settings import CropConfig, CropMode
from detpipe.classify.fast_rcnn.network import FastRcnnSpec, build_fast_rcnn
from detpipe.classify.features.extractor import RegionFeatures
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.images.network import ImageClassifierSpec, build_image_classifier
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.multibox_fast_rcnn.network import build_multibox_fast_rcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.stored.linear_svm import SvmConfig
from tests.classify.multibox_fast_rcnn import tiny as tiny_multibox_fast_rcnn
from tests.heads.multibox import tiny as tiny_multibox
from tests.heads.stored.examples import clusters

CLASSES, CATEGORY_IDS = ("disc", "square"), (3, 9)
CROPS = CropConfig(size=64, mode=CropMode.square, fill=[1, 2, 3])
Made = tuple[nn.Module, ClassifierSpec]


def backbone(folder: Path) -> BackboneConfig:
    """The net, whose text is written into `folder`."""
    return tiny_multibox.spec(folder).backbone


def multibox_fast_rcnn(folder: Path) -> Made:
    spec = tiny_multibox_fast_rcnn.spec(folder)
    return tiny_multibox_fast_rcnn.network(spec), spec


def fast_rcnn(folder: Path) -> Made:
    head = FastRcnnConfig(maps=["conv2"], merge_width=None, pool_size=2, hidden=8, scales=[64], freeze_stages=0)
    spec = FastRcnnSpec(classes=CLASSES, category_ids=CATEGORY_IDS, backbone=backbone(folder), head=head)
    return build_fast_rcnn(spec, seed=1, pretrained=True), spec


def features(folder: Path) -> Made:
    seen = FeatureConfig(image_sides=[64], grid=1)
    spec = FeatureClassifierSpec(
        classes=CLASSES,
        category_ids=CATEGORY_IDS,
        backbone=backbone(folder),
        crops=CROPS,
        box_regression=True,
        features=seen,
        head="svm",
        extraction={"network": "abc", "bf16": False},
    )
    below = create_from_seed(spec.backbone, 1)
    width = RegionFeatures(below, CROPS, seen, device=torch.device("cpu"), bf16=False).width
    return FeatureClassifier(below, SvmConfig().train(clusters(width=width), seed=0)), spec


def crops(folder: Path) -> Made:
    spec = RcnnSpec(
        classes=CLASSES, category_ids=CATEGORY_IDS, backbone=backbone(folder), crops=CROPS, box_regression=True
    )
    return build_rcnn(spec, seed=1, pretrained=True, dropout=0.2), spec


def images(folder: Path) -> Made:
    spec = ImageClassifierSpec(classes=CLASSES, backbone=backbone(folder), view=ViewConfig(share=0.5))
    return build_image_classifier(spec, seed=1, pretrained=True, dropout=0.2), spec


MADE: dict[str, Callable[[Path], Made]] = {
    "multibox_fast_rcnn": multibox_fast_rcnn,
    "fast_rcnn": fast_rcnn,
    "features": features,
    "crops": crops,
    "images": images,
}
"""By the name of the kind."""

BUILD: dict[str, Callable[..., nn.Module]] = {
    "multibox_fast_rcnn": build_multibox_fast_rcnn,
    "fast_rcnn": build_fast_rcnn,
    "crops": build_rcnn,
    "images": build_image_classifier,
}
"""The kinds that are built from a description alone."""
