"""Commands in tasks: `run_task` makes one shard, in whatever process; `run_tasks` runs them all with an engine.

A local process, a job of a scheduler (task=k) and an engine for a cluster make a shard by the same code: the command's
`run` with `task` set.
"""

from __future__ import annotations

import functools
import json
import logging
import secrets
from collections import Counter as Multiset
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from detpipe.commands.plain_settings import from_plain, to_plain
from detpipe.commands.table import COMMANDS
from detpipe.console import RESULT
from detpipe.engines.engine import TaskCall, TaskError
from detpipe.progress import Counter, counted
from detpipe.runs.task_command import TaskCommand
from detpipe.storage.lmdb_store import DatabaseError, LmdbReader
from detpipe.storage.manifest import Artefact, Making, State
from detpipe.storage.remote_folder import RemoteFolder
from detpipe.storage.sharded_lmdb import ShardedLmdb
from detpipe.storage.shards import Shards

logger = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=TaskCommand)
_NAMED = 3
"""Number of different faults that a message names."""


def run_task(settings: Mapping[str, Any], task: int, tasks: int) -> None:
    """Make the shard of task `task` of 1..tasks. settings: what `task_settings` returns."""
    config = _restored(json.dumps(settings))
    if settings["remote"] is not None:
        folder = RemoteFolder(settings["remote"])
        folder.pull(task=task)
        config = replace(config, run_dir=str(folder.path))  # of this machine
    COMMANDS[settings["command"]].load_run()(replace(config, task=task, tasks=tasks))


@functools.lru_cache(maxsize=1)
def _restored(settings: str) -> Any:
    """The settings as an object. The tasks of a process share its data set, which reads its lists once."""
    return from_plain(json.loads(settings)["settings"])


def task_settings(config: TaskCommand, command: str) -> dict[str, Any]:
    """The settings of a command as plain data. The run folder decides about `overwrite` once, before the tasks."""
    plain = to_plain(replace(config, task=None, overwrite=False))
    remote = RemoteFolder.of(config.folder.path)
    return {
        "command": command,
        "settings": plain,
        "remote": remote.url if remote is not None else None,
        # Each call has a name of its own: a process that lives longer must not use the lists of an earlier call.
        "call": secrets.token_hex(8),
    }


@contextmanager
def making_shard(config: TaskCommand, whole: Artefact, *, replaces: bool = False) -> Iterator[tuple[Making, Shards]]:
    """Make the shard `config.task` of an artefact in the block of a `with`; see `Artefact.making`.

    The block writes into `making.path`. Nothing is needed if the shard or the whole is finished. Raises ArtefactError
    if one of them was made with other settings or data, ShardError as `Shards.held`. replaces: the command replaces
    such a whole without `overwrite`.
    """
    assert config.tasks is not None
    assert config.task is not None
    shards = Shards(whole, config.tasks)
    needless = Making(shards.path(config.task), State.COMPLETE)
    if not config.overwrite:
        if shards.is_finished():
            logger.log(RESULT, "%s: is finished, and needs no task", whole.path)
            yield needless, shards
            return
        if not replaces:
            shards.refuse_other_whole()
        shards.refuse_other_number()
    with shards.held(config.task):
        # While this process waited, another may have made this shard and merged it: then there is no shard any more.
        if not config.overwrite and shards.is_finished():
            shards.remove_lock(config.task)
            yield needless, shards
            return
        shard = shards.artefact(config.task)
        with shard.making(overwrite=config.overwrite) as making:
            yield making, shards
    logger.log(
        RESULT,
        "%s: task %d of %d: %d images in %.1f s -> %s",
        shard.manifest.stage,
        config.task,
        config.tasks,
        shard.manifest.summary["images"],
        shard.manifest.seconds,
        shard.path,
    )


@contextmanager
def held_shards(config: TaskCommand, *wholes: Artefact, merge: bool = True) -> Iterator[list[Shards]]:
    """A block that makes artefacts from their shards; no other process may do the same. Without `tasks`: nothing.

    At its start, shards of other settings are deleted with `overwrite`; at its end, all shards. Raises ShardError if
    `tasks` has changed.
    """
    if config.tasks is None:
        yield []
        return
    all_shards = [Shards(whole, config.tasks) for whole in wholes]
    with ExitStack() as stack:
        for shards in all_shards:
            is_to_merge = merge and shards.is_kept() and not shards.whole.path.is_symlink()  # a link is only read
            is_done = shards.is_finished() and not config.overwrite and not is_to_merge
            if is_done and not shards.folder.exists():  # the run folder may be read-only
                continue
            stack.enter_context(shards.held())
            if config.overwrite:
                shards.clear(keep_finished=True)
            if not is_done:
                shards.refuse_other_number()
                shards.release()
        yield all_shards
        for shards in all_shards:
            shards.remove()


@contextmanager
def opened_shard(shards: Shards, task: int) -> Iterator[LmdbReader]:
    """Open a finished shard in a block. Raises ShardError for a missing or damaged one, also in the block."""
    try:
        with LmdbReader(shards.finished(task)) as reader:
            yield reader
    except DatabaseError as error:
        raise shards.damaged(task, error) from error


def keep_shards(shards: Shards, *, records: str, seed: int | None = None) -> None:
    """Make the shards the whole artefact, and list all of their keys once: see `Shards.keep`.

    Raises ShardError or DatabaseError for a missing or damaged shard.
    """
    shards.keep(records=records, seed=seed)
    with ShardedLmdb(shards.whole.path) as database:
        logger.debug("%s: %d records in %d shards", database.path, len(database), shards.tasks)


def run_tasks(config: TaskCommand, command: str, shards: Sequence[Shards], sizes: Sequence[int]) -> None:
    """Make all missing shards with the engine.

    shards: of each artefact that the command makes. sizes: number of images of each task, for the progress.
    Raises TaskError, which names the faults, if tasks failed, and Interrupted after a signal.
    """
    assert config.tasks is not None
    missing = sorted({task for one in shards for task in one.missing()})
    done = config.tasks - len(missing)
    if done:
        logger.info("%s: %d of %d tasks already done", command, done, config.tasks)
    if not missing:
        return
    remote = RemoteFolder.of(config.folder.path)
    marker = next(one for one in shards if one.missing()).mark() if remote is None else None
    call = TaskCall(f"{__name__}:{run_task.__name__}", task_settings(config, command), config.tasks, marker)
    total = sum(sizes[task - 1] for task in missing)
    with counted(command, total=total, unit="images") as counter:
        monitor = Monitor(command, counter, {task: sizes[task - 1] for task in missing}, config.tasks)
        config.engine.run(call, missing, monitor)
    if remote is not None:
        remote.pull()  # the shards that other machines made
    monitor.hold_failures()


class Monitor:
    """Shows what happens to the tasks: an `Observer`.

    sizes: number of images of each task. tasks: number of all tasks.
    """

    def __init__(self, command: str, counter: Counter, sizes: Mapping[int, int], tasks: int) -> None:
        self._command, self._counter, self._sizes, self._tasks = command, counter, sizes, tasks
        self._counted = dict.fromkeys(sizes, 0)
        self._places: dict[int, str] = {}
        self._failed: dict[int, str] = {}
        self._finished = self._repeated = 0
        self._warned: set[str] = set()
        self._nodes: list[str] | None = None

    def nodes(self, names: Sequence[str]) -> None:
        """See `Observer`."""
        lost = sorted(set(self._nodes or ()) - set(names))
        self._nodes = list(names)
        gone = f"; lost: {', '.join(lost)}" if lost else ""
        logger.info("%s: %d nodes: %s%s", self._command, len(names), ", ".join(names) or "none", gone)

    def started(self, task: int, where: str) -> None:
        """See `Observer`."""
        self._places[task] = where
        logger.debug("%s: task %d of %d runs in %s", self._command, task, self._tasks, where)

    def event(self, task: int, event: Mapping[str, Any]) -> None:
        """See `Observer`."""
        if event["event"] == "progress" and event["name"] == self._command:
            self._count(task, event["advance"])
        elif event["event"] == "log":
            is_warning = event["level"] >= logging.WARNING
            if is_warning and event["text"] in self._warned:
                return
            level = event["level"] if is_warning else logging.DEBUG
            logger.log(level, "%s (task %d of %d)", event["text"], task, self._tasks)
            self._warned.add(event["text"])

    def finished(self, task: int) -> None:
        """See `Observer`."""
        self._count(task, self._sizes[task])
        self._finished += 1
        self._show()

    def repeated(self, task: int, reason: str) -> None:
        """See `Observer`."""
        self._repeated += 1
        where = self._places.get(task, "")
        logger.warning("%s: task %d of %d (%s) is run again: %s", self._command, task, self._tasks, where, reason)

    def failed(self, task: int, reason: str) -> None:
        """See `Observer`."""
        self._failed[task] = reason
        logger.warning("%s: task %d of %d failed: %s", self._command, task, self._tasks, reason)

    def _count(self, task: int, count: int) -> None:
        count = min(count, self._sizes[task] - self._counted[task])
        self._counted[task] += count
        if count:
            self._counter.advance(count)

    def _show(self) -> None:
        tenth = max(1, len(self._sizes) // 10)
        if self._finished % tenth and self._finished + len(self._failed) < len(self._sizes):
            return
        states = ((self._finished, "finished"), (len(self._failed), "failed"), (self._repeated, "repeated"))
        text = ", ".join(f"{count} {state}" for count, state in states if count)
        if self._nodes is not None:
            text += f"; on {len(self._nodes)} nodes"
        logger.info("%s: %d tasks: %s", self._command, len(self._sizes), text)

    def hold_failures(self) -> None:
        """Raise TaskError if tasks failed."""
        if not self._failed:
            return
        tasks = {reason: [task for task, one in self._failed.items() if one == reason] for reason in self._reasons()}
        named = [
            f"task {', '.join(map(str, tasks[reason][:_NAMED]))}{_more(tasks[reason])}: {reason}" for reason in tasks
        ]
        more = f"; and {len(named) - _NAMED} other faults" if len(named) > _NAMED else ""
        raise TaskError(
            f"{len(self._failed)} of {self._tasks} tasks failed; {'; '.join(named[:_NAMED])}{more}. Run the same "
            "command again: finished tasks are not repeated"
        )

    def _reasons(self) -> list[str]:
        return [reason for reason, _ in Multiset(self._failed.values()).most_common()]


def _more(tasks: Sequence[int]) -> str:
    return f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
