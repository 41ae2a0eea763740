"""The settings of `detpipe labels audit`. This file and what it imports do not need torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.features.settings import FeatureConfig
from detpipe.datasets.source import Split
from detpipe.heads.region_head import RegionHeadConfig
from detpipe.labels.page_settings import LabelsPageConfig
from detpipe.labels.regions import RegionConfig
from detpipe.network.settings import Precision
from detpipe.runs.command import Command


@dataclass(kw_only=True)
class LabelsAudit(Command):
    """Settings of `detpipe labels audit`."""

    splits: list[Split] = field(default_factory=lambda: list(Split))
    """The splits whose labels are judged. All of them take part in the folds."""
    folds: int = 5
    """Number of parts that the images are divided into. A label is judged by heads that were trained on the other
    parts. More folds take more time, and each head learns from more images."""
    min_score: float = 0.01
    """Suspects with a lower probability are not listed."""
    max_suspects: int = 2000
    """Largest number of suspects that are listed, the most probable first."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    """The regions of an image that are looked at."""
    head: RegionHeadConfig | None = None
    """A head on stored features, as head=linear. null: two_layers with settings for labels of which some are wrong."""
    width: int = 512
    """Features are reduced to this number of principal components, so that heads train in seconds. 0: not reduced."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The frozen network of the features. It must not have learned from these labels."""
    features: FeatureConfig = field(default_factory=lambda: FeatureConfig(crops=False))
    """Which features of a region are computed."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: bf16 where the hardware supports it."""
    page: LabelsPageConfig = field(default_factory=LabelsPageConfig)
    """The page."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds < 2 or self.max_suspects < 1 or self.width < 0:
            raise ValueError(
                "labels audit: expected folds from 2, max_suspects from 1 and width from 0, got "
                f"{self.folds}, {self.max_suspects}, {self.width}"
            )
        if not 0 <= self.min_score < 1:
            raise ValueError(f"min_score: expected a probability in [0, 1), got {self.min_score}")
        if not self.splits:
            raise ValueError("splits: expected at least one of train, val and test, got none")
