"""What all commands share: the run folder with a place for each artefact, seed, device, and the data set's splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.source import DatasetSource
from detpipe.network.settings import Device
from detpipe.runs.run_folder import RunFolder


@dataclass(kw_only=True)
class Command:
    """The settings of every command."""

    run_dir: str = "runs/latest"
    """The folder of all artefacts."""
    dataset: DatasetSource | None = None
    """The data set: dataset=voc|coco|images|demo and its settings."""
    seed: int = 0
    """Of everything random, from 0, below 2^63."""
    device: Device = Device.auto
    """auto is CUDA where there is one."""
    workers: int = -1
    """Worker processes; -1 is one a core, 0 works in the process itself. The artefacts don't depend on it."""
    overwrite: bool = False
    """Make artefacts anew that were made with other settings, instead of refusing."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        # Here, and not where it is first drawn from: that may be after an hour's work.
        if self.seed < 0:
            raise ValueError(f"seed: expected a whole number from 0, got {self.seed}")
        if self.seed >= 2**63:
            raise ValueError(f"seed: expected a whole number below 2^63, got {self.seed}")

    @property
    def data_source(self) -> DatasetSource:
        """The data set. Raises ValueError where none was given."""
        if self.dataset is None:
            raise ValueError("expected a data set, got none: give dataset=voc dataset.root=DIR (or coco, images, demo)")
        return self.dataset

    @property
    def folder(self) -> RunFolder:
        """The places of the artefacts."""
        return RunFolder(Path(self.run_dir))
