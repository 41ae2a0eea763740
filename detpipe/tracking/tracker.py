"""The interface of all trackers: programs that show the numbers of many trainings beside each other."""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.arguments import checked_fields


@dataclass(kw_only=True)
class Tracker(abc.ABC):
    """Base class of all trackers: settings, and a run of the tracker between `open` and `close`.

    A tracker runs in its own process (`follower.py`), which reads log.jsonl and metrics.json. So it may be slow, fail
    or use the global random generators: the training does not notice.
    """

    PACKAGE: ClassVar[str] = ""
    """The module that the tracker imports; none if empty."""

    def __post_init__(self) -> None:
        checked_fields(self)

    @property
    def is_on(self) -> bool:
        """Whether anything is tracked."""
        return True

    def check(self) -> None:
        """Raise ImportError before the training if the tracker's package is missing."""
        if self.PACKAGE and importlib.util.find_spec(self.PACKAGE) is None:
            raise ImportError(
                f"track: expected the package {self.PACKAGE}, got none; pip install 'detpipe[{self.PACKAGE}]', or "
                "leave track out"
            )

    @abc.abstractmethod
    def open(self, config: Mapping[str, Any], folder: Path, run: str | None) -> str:
        """Open a run of the tracker. Returns its id.

        config: the settings of the training, nested. folder: the run folder, whose name is the name of the run.
        run: the id of the run to continue; None starts a new one.
        """

    @abc.abstractmethod
    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log numbers of an iteration. Their names start with the stage, as "classifier/loss"."""

    def keep(self, file: Path) -> None:  # noqa: B027 (not all trackers store files)
        """Store a file with the run: metrics.json, recall.json or report.html."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is still in memory, and close the run."""


@dataclass(kw_only=True)
class NoTracker(Tracker):
    """Nothing is tracked. log.jsonl, metrics.json and the report have all numbers anyway."""

    @property
    def is_on(self) -> bool:
        return False

    def open(self, config: Mapping[str, Any], folder: Path, run: str | None) -> str:
        """Do nothing."""
        del config, folder, run
        return ""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names, as {"solver.base_lr": 0.01}. Empty settings give {}."""
    names: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            names.update(flat(value, f"{prefix}{name}."))
        else:
            names[f"{prefix}{name}"] = value
    return names
