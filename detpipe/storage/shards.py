"""Shards: the K parts of an artefact that K tasks make, each an artefact with its own manifest.

They are folders like proposals.shards/0003-of-0016, next to the whole artefact, until they are merged. Or they are kept
(merge=false): moved into the folder of the whole artefact, which then has an index of them (`shard_index.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from detpipe.storage.atomic import write_json, write_text
from detpipe.storage.file_lock import LockedError, locked
from detpipe.storage.links import refuse_link
from detpipe.storage.lmdb_pages import DATA, DatabaseError
from detpipe.storage.manifest import (
    Artefact,
    ArtefactError,
    Manifest,
    differences,
    find_manifest,
    manifest_path,
    same_key,
)
from detpipe.storage.shard_index import INDEX, SHARD_NAME, IndexedShard, ShardIndex, is_in_shards, read_index
from detpipe.structures import LeftOut

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

MOST_TASKS = 9999
WAIT = 10.0
"""Seconds to wait for a shard's lock: the processes of a killed driver end within this time."""
_MARKER = "driver.marker"


class ShardError(ValueError):
    """A shard is missing or damaged, or is being made by another process, or `tasks` has changed."""


class ShardHeldError(ShardError):
    """Another process makes this shard, or merges the shards."""


def part(total: int, task: int, tasks: int, *, step: int = 1) -> range:
    """The indices of task `task` of 1..tasks: one of `tasks` contiguous parts of 0..total-1 of about the same size.

    step: parts begin at multiples of it. Parts are empty if there are more tasks than steps.
    """
    steps = -(-total // step)
    begin, end = (steps * number // tasks * step for number in (task - 1, task))
    return range(min(begin, total), min(end, total))


def shards_folder(whole: Path) -> Path:
    """The folder of the shards of an artefact: proposals.shards for proposals.lmdb, train.shards for features/train."""
    return (
        whole.with_suffix(".shards") if whole.suffix in (".lmdb", ".json") else whole.with_name(f"{whole.name}.shards")
    )


def forget_merge(database: Path) -> None:
    """Delete the LMDB of an unfinished merge, or of one process. A merge into it would give other pages.

    database: its folder, which may not exist. Other files in it stay.
    """
    for file in (DATA, "lock.mdb"):
        (database / file).unlink(missing_ok=True)


class Shards:
    """The shards of an artefact. whole: the artefact, with its key. The key of a shard has its part in addition."""

    def __init__(self, whole: Artefact, tasks: int) -> None:
        self.whole, self.tasks = whole, tasks
        self.folder = shards_folder(whole.path)
        self._key = dataclasses.replace(whole.manifest)

    def path(self, task: int) -> Path:
        """The folder of a shard: in the folder of the whole if it is kept there."""
        name = f"{task:04d}-of-{self.tasks:04d}"
        kept = self.whole.path / name
        return kept if kept.is_dir() else self.folder / name

    def parts(self, items: Sequence[Item], *, step: int = 1) -> list[Sequence[Item]]:
        """The items of each task; see `part`."""
        parts = (part(len(items), task, self.tasks, step=step) for task in range(1, self.tasks + 1))
        return [items[own.start : own.stop] for own in parts]

    def own(self, items: Sequence[Item], task: int | None, *, step: int = 1) -> Sequence[Item]:
        """The items of one task; see `part`."""
        assert task is not None
        return self.parts(items, step=step)[task - 1]

    def artefact(self, task: int) -> Artefact:
        """A shard as an artefact."""
        return Artefact(
            self.path(task),
            stage=self._key.stage,
            settings={**self._key.settings, "part": [task, self.tasks]},
            inputs=self._key.inputs,
            explain=self.whole.explain,
        )

    def is_finished(self) -> bool:
        """Whether the whole artefact is complete, with this key, and has all of its shards if it is made of them."""
        found = self._complete_whole()
        return found is not None and same_key(found, self._key) and not self._is_torn()

    def is_kept(self) -> bool:
        """Whether the whole artefact is made of shards, which are not merged."""
        return is_in_shards(self.whole.path)

    def _is_torn(self) -> bool:
        kept = {path.name for path in _shards_in(self.whole.path)}
        if (self.whole.path / DATA).exists() or not (kept or self.is_kept()):
            return False
        try:
            return not {one.folder for one in read_index(self.whole.path).shards} <= kept
        except DatabaseError:
            return True

    def _kept(self) -> list[Path]:
        """The shards in the folder of the whole. What a link leads to is only read, so it has none."""
        return [] if self.whole.path.is_symlink() else _shards_in(self.whole.path)

    def keep(self, *, records: str, seed: int | None = None) -> None:
        """Make the shards the whole artefact: move them into its folder, and write their index.

        records: the name of their number of records in their summaries. seed: see `ShardIndex`. Raises as `finished`.
        """
        manifests = self.manifests()
        shards = []
        for task, manifest in enumerate(manifests, start=1):
            old = self.path(task)
            old.rename(self.whole.path / old.name)
            shards.append(IndexedShard(folder=old.name, records=manifest.summary[records], digest=manifest.digest))
        forget_merge(self.whole.path)
        index = ShardIndex(stage=self._key.stage, shards=shards, seed=seed)
        write_json(self.whole.path / INDEX, dataclasses.asdict(index))

    def release(self) -> None:
        """Mark a whole artefact of this key as unfinished if it is made of shards, so that it is made of them again.

        They stay where they are, and get its inputs, which another stage may have replaced (`rekey`). Raises LinkError
        for a link, through which this would write.
        """
        found = self.whole.found()
        if found is None or not same_key(found, self._key) or not (kept := self._kept()):
            return
        if found.complete:
            write_json(manifest_path(self.whole.path), {**dataclasses.asdict(found), "complete": False})
        for path in kept:
            shard = find_manifest(path)
            if shard is not None and shard.inputs != found.inputs:
                refuse_link(path)
                write_json(manifest_path(path), {**dataclasses.asdict(shard), "inputs": found.inputs})
        (self.whole.path / INDEX).unlink(missing_ok=True)

    def refuse_other_whole(self) -> None:
        """Raise ArtefactError if the whole artefact is complete, with other settings or data."""
        found = self._complete_whole()
        if found is not None:
            self.whole.refuse_other_key(found)

    def _complete_whole(self) -> Manifest | None:
        found = self.whole.found()
        return found if found is not None and found.complete and self.whole.path.exists() else None

    def missing(self) -> list[int]:
        """The tasks without a complete shard. Raises ArtefactError for a shard with other settings or data."""
        left = []
        for task in range(1, self.tasks + 1):
            artefact = self.artefact(task)
            found = artefact.found()
            if found is not None and artefact.path.is_dir():
                artefact.refuse_other_key(found)
            if found is None or not found.complete or not artefact.path.is_dir():
                left.append(task)
        return left

    def finished(self, task: int) -> Path:
        """The folder of a finished shard of this key. Raises ShardError without one."""
        wanted, path = self.artefact(task), self.path(task)
        try:
            found = find_manifest(path)
        except ArtefactError as error:
            raise self.damaged(task, error) from error
        if found is None or not found.complete:
            raise ShardError(
                f"{path}: expected a finished shard, got {'none' if found is None else 'an unfinished one'}; run the "
                "same command again, which makes it"
            )
        if not same_key(found, wanted.manifest):
            raise ShardError(
                f"{path}: expected a shard of these settings and data, got another: "
                f"{'; '.join(differences(found, wanted.manifest))}; give overwrite=true"
            )
        return path

    def damaged(self, task: int, error: object) -> ShardError:
        """The error for a shard that can't be read."""
        found = str(error).removesuffix("; copy or make it again")
        return ShardError(
            f"{self.path(task)}: expected an intact shard, got: {found}; delete this folder and run the same command "
            "again, which makes it again"
        )

    def manifests(self) -> list[Manifest]:
        """The manifests of all shards, in order. Raises as `finished`."""
        found = [find_manifest(self.finished(task)) for task in range(1, self.tasks + 1)]
        return [one for one in found if one is not None]

    def bad(self) -> list[LeftOut]:
        """What the tasks left out, in order. Raises as `finished`."""
        return [one for manifest in self.manifests() for one in manifest.bad]

    def retry_bad(self, *, delete: bool) -> None:
        """Let the next run try again what was left out: the user may repair it.

        delete: delete the shards with unreadable images; otherwise, mark them as unfinished, which keeps their records.
        """
        for task in range(1, self.tasks + 1):
            found = find_manifest(self.path(task))
            if found is None or not found.bad:
                continue
            if delete:
                _delete(self.path(task))
            else:
                found = dataclasses.replace(found, complete=False, bad=[], settings=dict(found.settings))
                write_json(manifest_path(self.path(task)), dataclasses.asdict(found))

    def refuse_other_number(self) -> None:
        """Raise ShardError if there are shards of another number of tasks."""
        folders = [*_shards_in(self.folder), *self._kept()]
        numbers = {int(path.name.rpartition("-")[2]) for path in folders}
        others = sorted(numbers - {self.tasks})
        if others:
            raise ShardError(
                f"{self.folder}: expected shards of tasks={self.tasks}, got shards of tasks={others[0]}; give "
                f"tasks={others[0]} to continue with them, or overwrite=true to start again"
            )

    def clear(self, *, keep_finished: bool) -> None:
        """Delete the shards. keep_finished: keep shards of this key and number of tasks, for `overwrite`."""
        own = {self.path(task): task for task in range(1, self.tasks + 1)}
        for path in (*_shards_in(self.folder), *self._kept()):
            if keep_finished and path in own:
                found = _readable_manifest(path)
                if found is not None and same_key(found, self.artefact(own[path]).manifest):
                    continue
            _delete(path)

    def mark(self) -> tuple[str, str]:
        """Write a marker beside the shards: its file and what is in it. Who doesn't see it has another run folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, text = self.folder.resolve() / _MARKER, secrets.token_hex(8)
        write_text(path, text)
        return str(path), text

    def remove(self) -> None:
        """Delete all shards that are not part of the whole, and their folder if nothing else is in it."""
        for path in (*_shards_in(self.folder), *(() if self.is_kept() else self._kept())):
            _delete(path)
        for folder in (self.folder, self.whole.path):
            for trash in folder.glob(".????-of-????.deleted"):  # of an earlier call that was killed
                shutil.rmtree(trash, ignore_errors=True)
        scratch = self.folder.glob(f".{_MARKER}.*part")  # of a call that was killed while it wrote the marker
        for file in (*self.folder.glob("*.lock"), self.folder / _MARKER, *scratch):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def remove_lock(self, task: int) -> None:
        """Delete the lock of a shard, which the caller has, and the folder of the shards if nothing else is in it."""
        self._lock(task).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _lock(self, task: int | None) -> Path:
        return self.folder / f"{'driver' if task is None else self.path(task).name}.lock"

    @contextlib.contextmanager
    def held(self, task: int | None = None) -> Iterator[None]:
        """A block in which no other process makes this shard or, for None, merges the shards.

        Raises ShardHeldError if another process does.
        """
        doing = "merges these shards" if task is None else "makes this shard"
        refuse_link(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock(task)
        refuse_link(lock)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock, doing, wait=WAIT if task is not None else 1.0))
            except LockedError as error:
                raise ShardHeldError(str(error)) from error
            yield


def _shards_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if SHARD_NAME.fullmatch(path.name) and path.is_dir()]


def _delete(path: Path) -> None:
    """Delete a shard. It is renamed first: a kill must not leave a part of it under its name."""
    if path.is_symlink():  # its target stays
        path.unlink()
        return
    trash = path.with_name(f".{path.name}.deleted")
    shutil.rmtree(trash, ignore_errors=True)
    path.rename(trash)
    shutil.rmtree(trash)


def _readable_manifest(path: Path) -> Manifest | None:
    try:
        return find_manifest(path)
    except ArtefactError:
        return None
