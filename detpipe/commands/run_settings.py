"""The settings of `detpipe propose` and `detpipe run`. This file and what it imports do not need torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.labeling import SamplingConfig
from detpipe.classify.settings import DetectConfig
from detpipe.duration import seconds_of
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.multibox.settings import MultiBoxConfig, MultiBoxSolverConfig
from detpipe.heads.region_head import BoxRegression, RegionHeadConfig, TrainedHeadConfig
from detpipe.network.settings import Precision
from detpipe.proposals.fusion import Fused
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.command import Command
from detpipe.runs.recipe import COSTS
from detpipe.runs.task_command import LmdbCommand
from detpipe.solver.solver_config import SolverConfig
from detpipe.tiles import TilesConfig
from detpipe.tracking.tracker import NoTracker, Tracker

Stage = TypeVar("Stage", bound=Command)


@dataclass(kw_only=True)
class Propose(LmdbCommand):
    """Settings of `detpipe propose`."""

    proposals: Proposer = field(default_factory=SelectiveSearch)
    """The proposal method: proposals=selective_search|multibox|edge_boxes|gaussian|uniform|sliding_window|ground_truth|
    import|fuse|tiled."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.proposals, Fused):
            targets = {self.folder.path.resolve(), self.folder.proposals.resolve()}
            if targets & {Path(source).resolve() for source in self.proposals.sources}:
                raise ValueError(
                    f"proposals.sources: expected other folders than the result's, got {self.folder.proposals}; give "
                    "another run_dir"
                )


@dataclass(kw_only=True)
class FineTuningHeadConfig:
    """The softmax head that `fine_tune` trains with the backbone. Its other settings are as in head=softmax."""

    freeze_stages: int = TrainedHeadConfig.freeze_stages
    """Number of backbone stages, from the stem up, that are frozen."""
    dropout: float = TrainedHeadConfig.dropout
    """Dropout probability of the features."""
    box_regression: BoxRegression = TrainedHeadConfig.box_regression
    """joint: train box regression together with the classes; none: classes only."""

    def head(self) -> TrainedHeadConfig:
        """The settings of the whole head. Raises ValueError for wrong values."""
        return TrainedHeadConfig(**vars(self))


@dataclass(kw_only=True)
class MultiBoxTrainingConfig:
    """The solver of MultiBox in `detpipe run`. `detpipe train-multibox` has all settings of a solver."""

    max_iter: int = MultiBoxSolverConfig.max_iter
    """Number of training iterations."""
    base_lr: float = MultiBoxSolverConfig.base_lr
    """Base learning rate."""
    batch_size: int = MultiBoxSolverConfig.batch_size
    """Number of images per batch."""

    def solver(self) -> MultiBoxSolverConfig:
        """The settings of the whole solver. Raises ValueError for wrong values."""
        return MultiBoxSolverConfig(**vars(self))


@dataclass(kw_only=True)
class Run(Propose):
    """Settings of `detpipe run`: those that its stages need. Each stage as a command of its own has some more."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling and labelling of training regions."""
    crops: CropConfig = field(default_factory=CropConfig)
    """How regions are cropped from their image."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The backbone network and its pretrained weights."""
    head: RegionHeadConfig = field(default_factory=TrainedHeadConfig)
    """The head on the backbone, which chooses the kind of detector, and the backbone layers to freeze."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    """The solver that trains the classifier."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """For a head on stored features: which features of a region are computed."""
    fine_tune: bool = False
    """For a head on stored features: first fine-tune the backbone with a softmax head (tuning)."""
    tuning: FineTuningHeadConfig = field(default_factory=FineTuningHeadConfig)
    """With fine_tune: the softmax head."""
    multibox: MultiBoxConfig = field(default_factory=MultiBoxConfig)
    """With proposals=multibox and no proposals.weights: the proposal network to train first."""
    multibox_solver: MultiBoxTrainingConfig = field(default_factory=MultiBoxTrainingConfig)
    """The solver of that network."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """From scored regions to detections."""
    precision: Precision = Precision.auto
    """float32 or bf16 for training, features and detection; auto: bf16 where the hardware supports it."""
    metrics: list[str] = field(default_factory=list)
    """Further metrics: words of installed packages, or package.module:function."""
    track: Tracker = field(default_factory=NoTracker)
    """Where the numbers of the run are shown beside other runs: track=none|tensorboard|mlflow|wandb|trackio."""
    tiles: int | None = None
    """Large images: side of the tiles in pixels, for proposals, training and detection. A head on crops or stored
    features takes tiles for its proposals only. null: no tiles."""
    overlap: int | None = None
    """With tiles: overlap of neighbouring tiles in pixels. null: a quarter of their size."""
    budget: str | None = None
    """Time of the whole run with all its stages, as 90s, 5min or 1h30min. A short trial tells how many
    training iterations fit; they replace solver.max_iter. null: solver.max_iter."""
    first_result: bool = True
    """With experiment=auto, if the run takes more than 4 minutes: first make a quick, less accurate result with its
    report in first_result/ of the run folder. It takes about a minute. false: none."""
    chosen_recipe: str | None = None
    """The experiment that experiment=auto chose. detpipe sets it."""
    departures: list[str] = field(default_factory=list)
    """Differences between a preset and its paper. They are logged before and after the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task is not None:
            raise ValueError(
                f"task: expected null, got {self.task}; `detpipe run` runs all tasks of its steps, and each step as a "
                "command of its own runs one"
            )
        if self.fine_tune and not self.head.STORED_FEATURES:
            raise ValueError(
                "fine_tune: expected a head on stored features, as head=svm; other heads fine-tune the backbone anyway"
            )
        if self.chosen_recipe is not None and self.chosen_recipe not in COSTS:
            raise ValueError(f"chosen_recipe: expected null or one of {', '.join(COSTS)}, got {self.chosen_recipe}")
        if self.budget is not None:
            seconds_of(self.budget, "budget")
            if self.tasks is not None:
                raise ValueError(f"budget: expected no tasks beside it, got tasks={self.tasks}; give solver.max_iter")
            if self.fine_tune:
                raise ValueError(
                    "budget: expected a recipe with one training, got fine_tune=true; give solver.max_iter"
                )
        self.tuning.head()
        self.multibox_solver.solver()
        if self.tile_settings.used:
            self.multibox = replace(self.multibox, tiles=self.tile_settings)
            if isinstance(self.head, FastRcnnConfig):
                self.head = replace(self.head, tiles=self.tile_settings)

    @property
    def tile_settings(self) -> TilesConfig:
        """`tiles` and `overlap` as one. Raises ValueError for wrong numbers."""
        return TilesConfig(size=self.tiles, overlap=self.overlap)

    def stage(self, command: type[Stage]) -> Stage:
        """The settings of one stage. Settings that `detpipe run` lacks have their defaults.

        `tiles` and `overlap` are in the settings of head and proposer already.
        """
        names = {one.name for one in fields(self)} - {"tiles", "overlap"}
        return command(**{one.name: getattr(self, one.name) for one in fields(command) if one.name in names})
