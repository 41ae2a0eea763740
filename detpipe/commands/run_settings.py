"""The settings of `detpipe propose` and `detpipe run`. This file and what it imports do without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from detpipe.commands.stage_settings import Crop, Detect, Evaluate, Features, TrainCls
from detpipe.heads.multibox.settings import MultiBoxConfig, MultiBoxSolverConfig
from detpipe.heads.region_head import TrainedHeadConfig
from detpipe.proposals.fusion import Fused
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.command import Command


@dataclass(kw_only=True)
class Propose(Command):
    """Settings of `detpipe propose`."""

    proposals: Proposer = field(default_factory=SelectiveSearch)
    """The method: proposals=selective_search|multibox|edge_boxes|gaussian|uniform|sliding_window|ground_truth|import|
    fuse."""
    sources: list[str] | None = None
    """Of proposals=fuse: a short name of proposals.sources."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sources is not None:
            if not isinstance(self.proposals, Fused):
                raise ValueError("sources: belongs to proposals=fuse; give both, or neither")
            self.proposals = replace(self.proposals, sources=self.sources)
        if isinstance(self.proposals, Fused):
            targets = {self.folder.path.resolve(), self.folder.proposals.resolve()}
            if targets & {Path(source).resolve() for source in self.proposals.sources}:
                raise ValueError(f"sources: {self.folder.proposals} is a source and the result; give another run_dir")


@dataclass(kw_only=True)
class Run(Propose, Crop, Features, TrainCls, Detect, Evaluate):
    """Settings of `detpipe run`: those of all its stages."""

    fine_tune: bool = False
    """For a head on stored features: first let the backbone learn the classes, by the softmax head `tuning`."""
    tuning: TrainedHeadConfig = field(default_factory=TrainedHeadConfig)
    """fine_tune: that head, and what of the backbone learns."""
    multibox: MultiBoxConfig = field(default_factory=MultiBoxConfig)
    """proposals=multibox without proposals.weights: the network that is trained to propose first."""
    multibox_solver: MultiBoxSolverConfig = field(default_factory=MultiBoxSolverConfig, metadata={"group": "solver"})
    """How it is trained."""
    departures: list[str] = field(default_factory=list)
    """What a preset does in another way than its paper; said before and after the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fine_tune and not self.head.STORED_FEATURES:
            raise ValueError("fine_tune: goes before a head on stored features, as head=svm; other heads fine-tune")
        for name, command in (("source", "detect"), ("detections", "eval")):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: belongs to `detpipe {command}`; `detpipe run` takes a data set")
