"""The table of kinds of classifiers: R-CNN, Fast R-CNN, heads on stored features, and image classifiers.

A new kind is a row here and a folder beside this file. `detpipe run`, `train-cls`, `detect`, `curve`, `export`,
`inspect` and `classes` read this table. No other file depends on the kind of a classifier.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detpipe.classify.classifier_folder import (
    DESCRIPTION,
    ClassifierError,
    ClassifierSpec,
    RegionSpec,
    own_backbone,
    read_kind,
    read_spec,
)
from detpipe.classify.crops.network import RcnnSpec, build_rcnn
from detpipe.classify.crops.scorer import crop_scorer
from detpipe.classify.detect import Scorer
from detpipe.classify.fast_rcnn.network import FastRcnnSpec, build_fast_rcnn
from detpipe.classify.fast_rcnn.scorer import fast_rcnn_scorer
from detpipe.classify.features.network import FeatureClassifierSpec, restore_feature_classifier
from detpipe.classify.features.scorer import feature_scorer
from detpipe.classify.images.network import ImageClassifierSpec, build_image_classifier
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec, build_multibox_fast_rcnn
from detpipe.classify.settings import DetectConfig
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig, MultiBoxFastRcnnConfig
from detpipe.heads.region_head import RegionHeadConfig, TrainedHeadConfig
from detpipe.heads.stored.feature_head import StoredHeadConfig
from detpipe.heads.table import HEADS, head_class
from detpipe.network.network_folder import WEIGHTS, read_network_weights

logger = logging.getLogger(__name__)

Restore = Callable[[Any, Mapping[str, Tensor]], nn.Module]
"""Makes the network from a description and the weights by name.

Raises ValueError for a description that describes no network, RuntimeError for the weights of another network.
"""


class LearnsFrom(enum.Enum):
    """The training data of a kind: the artefact that `train-cls` reads."""

    crops = "crops"
    """crops.lmdb, from `detpipe crop`."""
    proposals = "proposals"
    """Images with their proposals, from `detpipe propose`."""
    objects = "objects"
    """Images with their annotated objects; the network proposes regions itself."""
    features = "features"
    """Stored features, from `detpipe features`."""
    database = "database"
    """A database of labelled images, from `detpipe make-db`."""


@dataclass(frozen=True, eq=False)
class Kind:
    """One row of the table.

    description: the kind in words, for messages. spec: the class of classifier.json. head: the class of the head's
    settings. restore: builds the network from classifier.json and weights. scorer: the network in inference on regions;
    None for a classifier of whole images. detect_group: the field of `DetectConfig` with the settings of this kind;
    None if it has none. export: "module:Class" of its `DetectorExport`; None if it cannot be exported.
    """

    description: str
    spec: type[ClassifierSpec]
    head: type[RegionHeadConfig]
    learns_from: LearnsFrom
    restore: Restore
    scorer: Callable[..., Scorer] | None = None
    detect_group: str | None = None
    export: str | None = None

    @property
    def name(self) -> str:
        """The kind in classifier.json."""
        return self.spec.KIND

    @property
    def proposes(self) -> bool:
        """Whether the network proposes regions itself."""
        return issubclass(self.spec, RegionSpec) and self.spec.PROPOSES


def built(build: Callable[..., nn.Module]) -> Restore:
    """A `Restore` that builds the network from its description and loads the weights."""

    def restore(spec: Any, state: Mapping[str, Tensor]) -> nn.Module:
        network = build(spec, seed=0, pretrained=False)
        network.load_state_dict(dict(state))
        return network

    return restore


KINDS: tuple[Kind, ...] = (
    Kind(
        description="MultiBox and Fast R-CNN on shared maps (head=multibox_fast_rcnn)",
        spec=MultiBoxFastRcnnSpec,
        head=MultiBoxFastRcnnConfig,
        learns_from=LearnsFrom.objects,
        restore=built(build_multibox_fast_rcnn),
        scorer=fast_rcnn_scorer,
        detect_group="fast_rcnn",
        export="detpipe.classify.export.fast_rcnn:FastRcnnExport",
    ),
    Kind(
        description="Fast R-CNN (head=fast_rcnn)",
        spec=FastRcnnSpec,
        head=FastRcnnConfig,
        learns_from=LearnsFrom.proposals,
        restore=built(build_fast_rcnn),
        scorer=fast_rcnn_scorer,
        detect_group="fast_rcnn",
        export="detpipe.classify.export.fast_rcnn:FastRcnnExport",
    ),
    Kind(
        description="a head on stored features (head=svm and others)",
        spec=FeatureClassifierSpec,
        head=StoredHeadConfig,
        learns_from=LearnsFrom.features,
        restore=restore_feature_classifier,
        scorer=feature_scorer,
        detect_group="features",
        export="detpipe.classify.export.features:FeaturesExport",
    ),
    Kind(
        description="R-CNN, a classifier of crops (head=softmax)",
        spec=RcnnSpec,
        head=TrainedHeadConfig,
        learns_from=LearnsFrom.crops,
        restore=built(build_rcnn),
        scorer=crop_scorer,
        detect_group="crops",
        export="detpipe.classify.export.crops:RcnnExport",
    ),
    Kind(
        description="a classifier of whole images (train-cls db.train=DB)",
        spec=ImageClassifierSpec,
        head=TrainedHeadConfig,
        learns_from=LearnsFrom.database,
        restore=built(build_image_classifier),
    ),
)
"""All kinds. Head settings belong to the first row with a matching class, so subclasses come before their bases."""


def kind_of_head(head: RegionHeadConfig) -> Kind:
    """The kind of classifier that a region head trains. Raises ValueError for settings that no row has."""
    return kind_of_class(type(head))


def kind_of_class(head: type[RegionHeadConfig]) -> Kind:
    """The kind that a class of head settings trains. Raises ValueError for a class that no row has."""
    for kind in KINDS:
        if kind.scorer is not None and issubclass(head, kind.head):
            return kind
    raise ValueError(f"head: expected a class from the table of kinds (KINDS), got {head.__name__}")


def kind_in(folder: Path) -> Kind:
    """The kind of the classifier in a folder. Raises ClassifierError for an unknown kind, or without a classifier."""
    name = read_kind(folder)
    for kind in KINDS:
        if kind.name == name:
            return kind
    known = ", ".join(kind.name for kind in KINDS)
    raise ClassifierError(f"{folder / DESCRIPTION}: expected one of the kinds {known}, got {name}; train it again")


def load_spec(folder: Path) -> ClassifierSpec:
    """The description of the classifier in a folder, of any kind. Raises ClassifierError without a classifier."""
    return read_spec(folder, kind_in(folder).spec)


def load_region_spec(folder: Path) -> RegionSpec:
    """The description of a region classifier. Raises ClassifierError for another kind and for no classifier."""
    spec = load_spec(folder)
    if not isinstance(spec, RegionSpec):
        raise ClassifierError(
            f"{folder / DESCRIPTION}: expected a classifier of regions, got {kind_in(folder).description}; use "
            "detpipe.Classifier or `detpipe detect source=` for a classifier of whole images, or give a run "
            "folder that `detpipe run` made"
        )
    return spec


def load_classifier(folder: Path) -> tuple[nn.Module, ClassifierSpec]:
    """The network in evaluation mode on the CPU, and its description.

    Raises ClassifierError for a missing or wrong description, and for the weights of another network;
    NetworkFolderError for missing or unreadable weights.
    """
    kind = kind_in(folder)
    spec = read_spec(folder, kind.spec)
    state = read_network_weights(folder)
    try:
        network = kind.restore(own_backbone(folder, spec), state)
    except ValueError as error:
        raise ClassifierError(
            f"{folder / DESCRIPTION}: expected the description of the network in {WEIGHTS}, got: {error}; train it "
            "again with `detpipe train-cls overwrite=true`"
        ) from error
    except RuntimeError as error:
        raise ClassifierError(
            f"{folder / WEIGHTS}: expected the weights of the network in {DESCRIPTION}, got: {error}; train it again "
            "with `detpipe train-cls overwrite=true`"
        ) from error
    logger.debug("%s: loaded %s, of %d classes", folder, kind.description, len(spec.classes))
    return network.eval(), spec


def load_scorer(folder: Path, config: DetectConfig, device: torch.device, *, bf16: bool) -> tuple[Scorer, RegionSpec]:
    """The region classifier in a folder, ready for inference on a device, and its description.

    bf16: compute in bf16, else in float32.
    Raises as `load_region_spec` and `load_classifier`, and ClassifierError for settings of another kind.
    """
    load_region_spec(folder)
    kind = kind_in(folder)
    check_detect_settings(config, kind, f"{folder} has {kind.description}")
    network, spec = load_classifier(folder)
    assert kind.scorer is not None
    assert isinstance(spec, RegionSpec)
    return kind.scorer(network, spec, config, device, bf16=bf16), spec


def check_detect_settings(config: DetectConfig, kind: Kind, given: str) -> None:
    """Raise ClassifierError if a setting that belongs to other kinds is not at its default.

    given: what the user has, for the message, as "this run has head=svm".
    """
    default = DetectConfig()
    for group, settings in vars(config).items():
        if not is_dataclass(settings) or isinstance(settings, type) or group == kind.detect_group:
            continue
        usual = asdict(getattr(default, group))
        changed = [f"detect.{group}.{name}" for name, value in asdict(settings).items() if value != usual[name]]
        if changed:
            heads = " or ".join(word for word in HEADS.rows if kind_of_class(head_class(word)).detect_group == group)
            needs = "needs" if len(changed) == 1 else "need"
            raise ClassifierError(f"{' and '.join(changed)} {needs} head={heads}; {given}. Leave detect.{group} out")
