"""The settings of the stages of `detpipe run` after proposals. This file and what it imports do not need torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.labeling import SamplingConfig
from detpipe.classify.settings import DetectConfig
from detpipe.engines.local import LocalEngine
from detpipe.heads.multibox.settings import MultiBoxConfig, MultiBoxSolverConfig
from detpipe.heads.region_head import RegionHeadConfig, TrainedHeadConfig
from detpipe.network.settings import Precision
from detpipe.runs.command import Command
from detpipe.runs.task_command import LmdbCommand, TaskCommand
from detpipe.solver.solver_config import SolverConfig
from detpipe.structures import MAX_PIXELS
from detpipe.tiles import TilesConfig
from detpipe.tracking.tracker import NoTracker, Tracker


@dataclass(kw_only=True)
class Crop(LmdbCommand):
    """Settings of `detpipe crop`."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling and labelling of training regions."""
    crops: CropConfig = field(default_factory=CropConfig)
    """How regions are cropped, and stored."""
    verify: bool = False
    """After writing (or if the crops exist already), read and decode every crop to check it."""


@dataclass(kw_only=True)
class Features(TaskCommand):
    """Settings of `detpipe features`."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling and labelling of the regions of training images."""
    crops: CropConfig = field(default_factory=CropConfig)
    """How regions are cropped. Their pixels are not stored."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The backbone network. It is not trained."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """Which features of a region are computed."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """Only detect.max_proposals (regions per test image) and detect.batch_size are used here."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: bf16 where the hardware supports it."""


@dataclass(kw_only=True)
class TrainCls(Command):
    """Settings of `detpipe train-cls`."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The backbone network and its pretrained weights."""
    head: RegionHeadConfig = field(default_factory=TrainedHeadConfig)
    """The head on the backbone, and the backbone layers to freeze."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    """The solver."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Fast R-CNN: sampling and labelling of training regions. For crops these are settings of `detpipe crop`."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: bf16 where the hardware supports it."""
    track: Tracker = field(default_factory=NoTracker)
    """Where the numbers of the training are shown beside other runs: track=none|tensorboard|mlflow|wandb|trackio."""

    @property
    def trained_head(self) -> TrainedHeadConfig:
        """The head, if it is trained together with the backbone. Raises ValueError for another head."""
        if not isinstance(self.head, TrainedHeadConfig):
            raise ValueError(
                f"head: expected a head that trains with the backbone, as softmax, got {type(self.head).__name__}"
            )
        return self.head


@dataclass(kw_only=True)
class TrainDatabases:
    """Image databases for training a classifier of whole images."""

    train: str | None = None
    """Training database, written by make-db or Caffe. null: train on the run folder's crops."""
    val: str | None = None
    """Validation database, tested on during training."""


@dataclass(kw_only=True)
class TrainImages(TrainCls):
    """Settings of `detpipe train-cls`, for classifiers of regions and of whole images."""

    db: TrainDatabases = field(default_factory=TrainDatabases)
    """Image databases, to train a classifier of whole images."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """Crop and augmentation of their images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.db.train is None and self.db.val is not None:
            raise ValueError("db.val: expected db.train beside it, got none; give both, or neither to train on crops")


class TargetSource(enum.Enum):
    """Training targets: the annotated objects, or the run's proposals by rank (without labels)."""

    truth = "truth"
    proposals = "proposals"


@dataclass(kw_only=True)
class TrainMultiBox(Command):
    """Settings of `detpipe train-multibox`."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The backbone network and its pretrained weights. To start from a backbone that a detector has fine-tuned, give
    backbone.weights=DIR/classifier/weights.safetensors."""
    multibox: MultiBoxConfig = field(default_factory=MultiBoxConfig)
    """The architecture and its losses. multibox=multibox_2014|msc_multibox are the papers' settings."""
    solver: SolverConfig = field(default_factory=MultiBoxSolverConfig)
    """The solver. solver.batch_size counts images."""
    targets: TargetSource = TargetSource.truth
    """truth: train on the annotated objects. proposals: pretrain on the run folder's proposals, without labels."""
    target_boxes: int = 20
    """With targets=proposals: number of top-ranked proposals per image to train on. The weight of the r-th of n is
    1 - r / n."""
    val_share: float = 0.1
    """Share of the training images used for validation if the data set has no validation split."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: bf16 where the hardware supports it."""
    track: Tracker = field(default_factory=NoTracker)
    """Where the numbers of the training are shown beside other runs: track=none|tensorboard|mlflow|wandb|trackio."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.val_share < 1 or self.target_boxes < 1:
            raise ValueError(
                f"train-multibox: expected val_share in [0, 1) and target_boxes >= 1, got {self.val_share}, "
                f"{self.target_boxes}"
            )


@dataclass(kw_only=True)
class Detect(TaskCommand):
    """Settings of `detpipe detect`."""

    detect: DetectConfig = field(default_factory=DetectConfig)
    """From scored regions to detections."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: the precision saved with the classifier, else bf16 where the hardware supports it."""
    tiles: int | None = None
    """Large images: side of the tiles in pixels (detect.fast_rcnn.tiles), also for the proposals of a `source`. 0: no
    tiles. null: as in the training."""
    overlap: int | None = None
    """With tiles: overlap of neighbouring tiles in pixels. null: a quarter of their size."""
    outside: bool = False
    """With `source`: also follow links in this folder that lead out of it."""
    boxes: str | None = None
    """With `source`: a file with boxes for these images, as for proposals=import, such as MegaDetector's. null: boxes
    by the run's proposer."""
    source: str | None = None
    """An image, a folder of images, or tar files with images, in place of a data set. The outputs go to sources/NAME of
    the run folder."""
    out: str | None = None
    """With `source`: a folder for the detections as Parquet files, such as detections.parquet, in place of the outputs
    in the run folder. A later call continues with the images that it does not have. With engine=ray, without tasks: on
    the nodes of a Ray cluster."""
    max_pixels: int = MAX_PIXELS
    """Limit on height x width of an image of `source`. A larger one is skipped without decoding it."""
    voc_results: bool = False
    """Also write the result files of the VOC devkit (voc_results/comp4_det_test_<class>.txt)."""
    coco: bool = False
    """Also write detections_coco.json: images, categories and detections, for FiftyOne, CVAT and Label Studio."""
    yolo: bool = False
    """Also write yolo/labels/NAME.txt with lines of class, cx, cy, width, height, score, and yolo/classes.txt."""
    megadetector: bool = False
    """Also write megadetector.json: animals with possible classes in MegaDetector's format, for Timelapse."""
    taxonomy: str | None = None
    """CSV file with the parents of each class: class, then its parents from fine to coarse. Animals get an answer
    from it, in animals.csv and, with `megadetector`, in megadetector.json."""
    taxonomy_threshold: float = 0.65
    """With `taxonomy`: the smallest summed probability of an answer. Below it, the answer is a coarser name."""
    show_floor: float | None = None
    """Minimum score of detections drawn and counted with `source`, or written with `coco` or `yolo`. null: the score
    with the best F1 in the run's evaluation, or 0.5 without an evaluation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.show_floor is not None and not 0 <= self.show_floor <= 1:
            raise ValueError(f"show_floor: expected a score in [0, 1] or null, got {self.show_floor}")
        if self.out is not None:
            self._check_out()
        elif self.source is not None and self.tasks is None and not isinstance(self.engine, LocalEngine):
            raise ValueError(
                "engine: expected out=DIR.parquet for a stream of detections, or tasks=K for shards, got neither; give "
                "one of them, or leave engine out"
            )
        if self.boxes is not None and self.source is None:
            raise ValueError("boxes: expected source=DIR beside it, got none; for a data set give proposals=import")
        _check_taxonomy_threshold(self.taxonomy_threshold)
        if self.tiles is not None or self.overlap is not None:
            self.detect = replace(self.detect, fast_rcnn=replace(self.detect.fast_rcnn, tiles=self.tile_settings))

    def _check_out(self) -> None:
        if self.source is None:
            raise ValueError("out: expected source=DIR beside it, got none; leave it out, or give the source")
        names = ("boxes", "voc_results", "coco", "yolo", "megadetector", "taxonomy", "show_floor")
        given = [name for name in names if getattr(self, name) not in (None, False)]
        if given:
            raise ValueError(f"{given[0]}: expected none beside out, which writes Parquet alone; leave one of them out")

    @property
    def tile_settings(self) -> TilesConfig:
        """`tiles` and `overlap` as one. Raises ValueError for wrong numbers."""
        return TilesConfig(size=self.tiles, overlap=self.overlap)


@dataclass(kw_only=True)
class Evaluate(Command):
    """Settings of `detpipe eval`."""

    detections: str | None = None
    """A COCO result file to evaluate. null: the run folder's detections."""
    taxonomy: str | None = None
    """CSV file with the parents of each class: class, then its parents from fine to coarse. The report then has the
    accuracy at each level."""
    taxonomy_threshold: float = 0.65
    """With `taxonomy`: the smallest summed probability of an answer. Below it, the answer is a coarser name."""
    report_megabytes: float = 8.0
    """The largest size of report.html. With more, its pictures are larger, and it has room for more images."""
    metrics: list[str] = field(default_factory=list)
    """Further metrics: words of installed packages, or package.module:function."""
    track: Tracker = field(default_factory=NoTracker)
    """Where metrics and report are stored beside other runs: track=none|tensorboard|mlflow|wandb|trackio."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.report_megabytes >= 1:
            raise ValueError(f"report_megabytes: expected at least 1, got {self.report_megabytes}")
        _check_taxonomy_threshold(self.taxonomy_threshold)


def _check_taxonomy_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"taxonomy_threshold: expected a probability in [0, 1], got {threshold}")


@dataclass(kw_only=True)
class EvaluateImages(Evaluate):
    """Settings of `detpipe eval`, for detections and for classifiers of whole images."""

    db: str | None = None
    """An image database to test a classifier of whole images on. null: evaluate detections."""
    backbone: BackboneConfig | None = None
    """With `db`: a network whose weights include a classifier. null: the run folder's classifier."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """With `backbone`: how images are cropped for the network."""
