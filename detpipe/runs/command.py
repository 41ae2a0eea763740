"""The settings that all commands share: run folder, data set, seed, device and worker processes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.auto import AutoSource
from detpipe.datasets.source import DatasetSource
from detpipe.network.settings import Device
from detpipe.runs.kept_dataset import kept_dataset, kept_text
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.object_storage import is_remote

logger = logging.getLogger(__name__)

MOST_WORKERS = 1024
"""Limit on worker processes: more is a mistake, and would fill the memory."""


@dataclass(kw_only=True)
class Command:
    """The settings of every command."""

    run_dir: str = "runs/latest"
    """The run folder, which holds all outputs."""
    dataset: DatasetSource | None = None
    """The data set: dataset.root=DIR, whose format is found, or a format's word and its settings. null: the one that
    the run folder remembers (dataset.json)."""
    seed: int = 0
    """Seed of all random numbers: 0 <= seed < 2^63."""
    device: Device = Device.auto
    """auto, cpu or cuda. auto is CUDA if the machine has it."""
    workers: int = -1
    """Number of worker processes; -1: one per core; 0: no extra process. The results do not depend on it."""
    overwrite: bool = False
    """Recompute outputs that were made with other settings. Without it, the command stops and names the settings."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        # Checked here because the first random number may be drawn only after an hour of work.
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected an integer with 0 <= seed < 2^63, got {self.seed}")
        if not -1 <= self.workers <= MOST_WORKERS:
            raise ValueError(
                f"workers: expected -1 (one per core), 0 (none) or a number up to {MOST_WORKERS}, got {self.workers}"
            )
        if not self.run_dir:
            raise ValueError("run_dir: expected a folder, got an empty text; give run_dir=. for the current folder")
        if is_remote(self.run_dir):
            raise ValueError(
                f"run_dir: expected a folder of this machine or a shared file system, got {self.run_dir}; a command "
                "line takes such an address, and so does the function train"
            )
        if isinstance(self.dataset, AutoSource):  # so that whatever is recorded names the format
            self.dataset = self.dataset.found()

    @property
    def data_source(self) -> DatasetSource:
        """The data set of the settings, else the one that the run folder remembers.

        Raises ValueError if there is none, and as `kept_dataset`.
        """
        if self.dataset is None:
            # Kept in the field, so that the stages of a run share it: a source reads its lists only once.
            self.dataset = kept_dataset(self.dataset_folder)
            if self.dataset is None:
                raise ValueError(
                    f"dataset: expected a data set, got none, and {self.dataset_folder.path} remembers none (it has no "
                    "dataset.json); give dataset.root=DIR, or the run_dir of a run that was made with one"
                )
            logger.info("using the run's own data set: %s", kept_text(self.dataset_folder, self.dataset))
        return self.dataset

    @property
    def dataset_folder(self) -> RunFolder:
        """The run folder that remembers the data set."""
        return self.folder

    @property
    def folder(self) -> RunFolder:
        """The paths of the outputs."""
        return RunFolder(Path(self.run_dir))
