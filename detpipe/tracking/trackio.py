"""Trackio: runs in a database on this machine, which `trackio show` shows."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.tracking.tracker import Tracker, flat


@dataclass(kw_only=True)
class Trackio(Tracker):
    """A run of a Trackio project on this machine. It needs no account."""

    PACKAGE: ClassVar[str] = "trackio"

    project: str = "detpipe"
    """The project that the run belongs to."""

    def open(self, config: Mapping[str, Any], folder: Path, run: str | None) -> str:
        """A new run, or the earlier one. Trackio knows a run by its name."""
        import trackio

        self._trackio = trackio
        name = run or f"{folder.resolve().name}-{uuid.uuid4().hex[:6]}"
        trackio.init(project=self.project, name=name, resume="allow", config=flat(config), embed=False)
        return name

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """One row."""
        self._trackio.log(dict(numbers), step=step)

    def keep(self, file: Path) -> None:
        """An artefact of the run."""
        self._trackio.log_artifact(str(file), name=file.name, type="result")

    def close(self) -> None:
        """Write what is left."""
        self._trackio.finish()
