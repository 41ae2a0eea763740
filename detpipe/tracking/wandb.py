"""Weights & Biases: a run in a project, online or in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.tracking.tracker import Tracker, flat


@dataclass(kw_only=True)
class WeightsAndBiases(Tracker):
    """A run of a Weights & Biases project. `wandb login` or WANDB_API_KEY sets the account."""

    PACKAGE: ClassVar[str] = "wandb"

    project: str = "detpipe"
    """The project that the run belongs to."""
    entity: str | None = None
    """The user or team of the project. null: the account's own."""
    offline: bool = False
    """Write the run to the folder wandb/ in the run folder, without network. `wandb sync` uploads it later."""

    def open(self, config: Mapping[str, Any], folder: Path, run: str | None) -> str:
        """A new run, or the earlier one. Each stage counts its own iterations."""
        import wandb

        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=folder.resolve().name,
            dir=str(folder),
            id=run,
            resume="allow" if run is not None else None,
            mode="offline" if self.offline else "online",
            config=flat(config),
        )
        return str(self._run.id)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """One row. wandb accepts growing steps only, so the iteration is a number of the stage."""
        stages = {name.partition("/")[0] for name in numbers}
        for stage in stages:
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/iteration")
        self._run.log({**numbers, **{f"{stage}/iteration": step for stage in stages}})

    def keep(self, file: Path) -> None:
        """An artefact of the run."""
        self._run.log_artifact(str(file), name=file.name.replace(".", "_"), type="result")

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()
