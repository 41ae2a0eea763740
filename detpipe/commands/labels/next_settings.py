"""The settings of `detpipe labels next`. This file and what it imports do not need torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from detpipe.labels.page_settings import LabelsPageConfig
from detpipe.labels.selection import SelectionShares
from detpipe.network.settings import Precision
from detpipe.runs.command import Command
from detpipe.structures import MAX_PIXELS


@dataclass(kw_only=True)
class LabelsNext(Command):
    """Settings of `detpipe labels next`."""

    source: str | None = None
    """A folder of images without labels. Those that the data set has already are left out."""
    count: int = 20
    """Number of images to choose. All are taken if the folder has fewer."""
    shares: SelectionShares = field(default_factory=SelectionShares)
    """How many images are chosen by which criterion."""
    draw_score: float | None = None
    """Lowest score of a box that is drawn in advance. null: half of the threshold with the best F1, because a wrong box
    is deleted faster than a missing one is drawn."""
    outside: bool = False
    """Also follow links in `source` that lead out of it."""
    max_pixels: int = MAX_PIXELS
    """Limit on height x width of an image of `source`. A larger one is skipped without decoding it."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: the precision saved with the classifier."""
    page: LabelsPageConfig = field(default_factory=LabelsPageConfig)
    """The page."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count: expected at least 1 image, got {self.count}")
        if self.draw_score is not None and not 0 <= self.draw_score <= 1:
            raise ValueError(f"draw_score: expected a score in [0, 1] or null, got {self.draw_score}")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: expected at least 1, got {self.max_pixels}")

    @property
    def source_folder(self) -> str:
        """The folder. Raises ValueError if it is not given."""
        if not self.source:
            raise ValueError("source: expected a folder of images to choose from, got none; give source=FOLDER")
        return self.source
