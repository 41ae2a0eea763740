"""The settings of commands that divide their images among tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

from detpipe.engines.engine import Engine
from detpipe.engines.local import LocalEngine
from detpipe.runs.command import Command
from detpipe.storage.shards import MOST_TASKS


@dataclass(kw_only=True)
class TaskCommand(Command):
    """A command whose images can be divided among tasks."""

    tasks: int | None = None
    """Divide the images among this many tasks. Each makes a shard; then the shards are merged. The result does not
    depend on it. null: one process does it all."""
    task: int | None = None
    """With tasks: make only the shard of this task, 1 to tasks, and don't merge. null: run and merge all tasks."""
    engine: Engine = field(default_factory=LocalEngine)
    """With tasks: where the tasks run: engine=local or engine=ray."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks is None:
            if self.task is not None:
                raise ValueError(
                    f"task: expected tasks beside task={self.task}, got none; give the number of all tasks"
                )
            return
        if not 1 <= self.tasks <= MOST_TASKS:
            raise ValueError(f"tasks: expected 1 to {MOST_TASKS}, or null, got {self.tasks}")
        if self.task is not None and not 1 <= self.task <= self.tasks:
            raise ValueError(f"task: expected 1 to tasks={self.tasks}, or null for all tasks, got {self.task}")


@dataclass(kw_only=True)
class LmdbCommand(TaskCommand):
    """A command with tasks that makes LMDBs. Their shards may stay as they are."""

    merge: bool = True
    """With tasks: merge the shards into one LMDB. false: keep them, in the folder of the LMDB. All commands read them
    as one. merge=true merges them later."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.merge and self.tasks is None:
            raise ValueError("merge: expected tasks beside merge=false, got none; give the number of tasks")
