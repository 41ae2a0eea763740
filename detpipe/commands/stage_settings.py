"""The settings of the stages of `detpipe run` after proposals. This file and what it imports do without torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.labeling import SamplingConfig
from detpipe.classify.settings import DetectConfig
from detpipe.heads.multibox.settings import MultiBoxConfig, MultiBoxSolverConfig
from detpipe.heads.region_head import RegionHeadConfig, TrainedHeadConfig
from detpipe.network.settings import Precision
from detpipe.runs.command import Command
from detpipe.solver.solver_config import SolverConfig


@dataclass(kw_only=True)
class Crop(Command):
    """Settings of `detpipe crop`."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Which regions, labelled how."""
    crops: CropConfig = field(default_factory=CropConfig)
    """How they are cut out and stored."""
    verify: bool = False
    """Read every crop back and decode it when all are written (and when they were there already)."""


@dataclass(kw_only=True)
class Features(Command):
    """Settings of `detpipe features`."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Which regions of the training images, labelled how."""
    crops: CropConfig = field(default_factory=CropConfig)
    """How they are cut out; nothing is stored of the pixels."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network, which stays as it is."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """What of a region it is shown."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """max_proposals: how many regions of each test image; batch_size: crops at once."""
    precision: Precision = Precision.auto
    """float32 or bf16."""


@dataclass(kw_only=True)
class TrainCls(Command):
    """Settings of `detpipe train-cls`."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network below, with its ImageNet weights."""
    head: RegionHeadConfig = field(default_factory=TrainedHeadConfig)
    """What stands on it, and what of it learns."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    """How it is trained."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """fast_rcnn: which regions of an image it learns from, labelled how; of crops `detpipe crop` says it."""
    precision: Precision = Precision.auto
    """float32 or bf16."""

    @property
    def trained_head(self) -> TrainedHeadConfig:
        """The head, where it is one that trains with the backbone. Raises ValueError for another."""
        if not isinstance(self.head, TrainedHeadConfig):
            raise ValueError(
                f"head: expected one that trains with the backbone, as softmax, got {type(self.head).__name__}"
            )
        return self.head


@dataclass(kw_only=True)
class TrainDatabases:
    """The databases of images of a training without detection."""

    train: str | None = None
    """A database that make-db or Caffe wrote; null trains on the run folder's crops."""
    val: str | None = None
    """Another one, tested on while training."""


@dataclass(kw_only=True)
class TrainImages(TrainCls):
    """Settings of `detpipe train-cls`: those of regions, and what takes their place for whole images."""

    db: TrainDatabases = field(default_factory=TrainDatabases)
    """Databases to train a plain classifier on."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """What of their images the network sees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.db.train is None and self.db.val is not None:
            raise ValueError("db.val: goes with db.train; give both, or neither to train on crops")


class TargetSource(enum.Enum):
    """What stands for objects: the annotated ones, or the run's proposals by their rank (no labels needed)."""

    truth = "truth"
    proposals = "proposals"


@dataclass(kw_only=True)
class TrainMultiBox(Command):
    """Settings of `detpipe train-multibox`."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network below, with its ImageNet weights; backbone.weights=DIR/classifier/weights.safetensors takes over
    what a training of regions made of it."""
    multibox: MultiBoxConfig = field(default_factory=MultiBoxConfig)
    """The form of the network and its losses: multibox=multibox_2014|msc_multibox, or our own."""
    solver: SolverConfig = field(default_factory=MultiBoxSolverConfig)
    """How it is trained; batch_size counts images."""
    targets: TargetSource = TargetSource.truth
    """truth, or proposals: those of the run folder stand for objects, for a start without labels."""
    target_boxes: int = 20
    """targets=proposals: the best so many of an image; the r-th of n is worth 1 - r / n."""
    val_share: float = 0.1
    """Share of the training images that validate, where the data set names none."""
    precision: Precision = Precision.auto
    """float32 or bf16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.val_share < 1 or self.target_boxes < 1:
            raise ValueError(
                f"train-multibox: expected val_share in [0, 1) and target_boxes >= 1, got {self.val_share}, "
                f"{self.target_boxes}"
            )


@dataclass(kw_only=True)
class Detect(Command):
    """Settings of `detpipe detect`."""

    detect: DetectConfig = field(default_factory=DetectConfig)
    """From scored regions to detections."""
    source: str | None = None
    """An image or a folder of images in place of a data set; writes annotated/ as well."""
    voc_results: bool = False
    """Write the VOC devkit's result files (voc_results/comp4_det_test_<class>.txt) as well."""
    coco: bool = False
    """Write detections_coco.json as well: images, categories and detections, for FiftyOne, CVAT and Label Studio."""
    show_floor: float = 0.5
    """Detections that are drawn on the images of `source`, or written by `coco`, have this score or more."""


@dataclass(kw_only=True)
class Evaluate(Command):
    """Settings of `detpipe eval`."""

    detections: str | None = None
    """A COCO result file; null for the run folder's own."""
    max_dets: int = 100
    """Images with so many detections are counted in a warning: more might have been cut off."""


@dataclass(kw_only=True)
class EvaluateImages(Evaluate):
    """Settings of `detpipe eval`: those of detections, and what takes their place for a database of images."""

    db: str | None = None
    """A database of images to test a classifier on; null compares detections."""
    backbone: BackboneConfig | None = None
    """With `db`: a network with the classifier that its weights bring; null is the run folder's own."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """With `backbone`: what of the images it sees."""
