"""The interface of all engines: they run the tasks of a command, each by the same call, and report what happens."""

from __future__ import annotations

import abc
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from detpipe.arguments import checked_fields
from detpipe.class_path import load_object

THREADS = "OMP_NUM_THREADS"


class TaskError(RuntimeError):
    """Tasks failed, or their processes ended."""


@dataclass(frozen=True)
class TaskCall:
    """What a process needs to run one task.

    function: "module:name" of a function (settings, task, tasks). settings: plain data (JSON types), so that no code
    travels. tasks: K, the number of parts. marker: a file beside the shards, and what is in it: a machine that does not
    find it has another run folder. None: no marker.
    """

    function: str
    settings: Mapping[str, Any]
    tasks: int
    marker: tuple[str, str] | None = None

    def run(self, task: int) -> None:
        """Run task `task` of 1..K in this process."""
        load_object(self.function)(self.settings, task, self.tasks)

    def with_cores(self, count: int) -> TaskCall:
        """The same for a process with this many cores: `workers` of one per core become one per core of its share."""
        if self.settings.get("settings", {}).get("fields", {}).get("workers") != -1:
            return self
        settings = json.loads(json.dumps(self.settings))
        settings["settings"]["fields"]["workers"] = count if count > 1 else 0
        return replace(self, settings=settings)


class Observer(Protocol):
    """What an engine tells about its tasks. Methods are called from one thread.

    where: the process or node of a task, for messages.
    """

    def nodes(self, names: Sequence[str]) -> None:
        """The nodes of a cluster have changed, or are known for the first time. Not called on one machine."""

    def started(self, task: int, where: str) -> None:
        """A process began a task."""

    def event(self, task: int, event: Mapping[str, Any]) -> None:
        """A task sent an event of `detpipe.engines.events`."""

    def finished(self, task: int) -> None:
        """A task is done."""

    def repeated(self, task: int, reason: str) -> None:
        """The process of a task ended early; the task is run again."""

    def failed(self, task: int, reason: str) -> None:
        """A task failed and is not run again."""


@dataclass(kw_only=True)
class Engine(abc.ABC):
    """Base class of all engines: settings, and `run`."""

    def __post_init__(self) -> None:
        checked_fields(self)

    @abc.abstractmethod
    def run(self, call: TaskCall, tasks: Sequence[int], observer: Observer) -> None:
        """Run the tasks with these numbers. Returns when each has finished or failed.

        A failed task does not stop the others. Raises Interrupted after a signal, when no task runs any more.
        """


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
