"""A run folder in object storage (run_dir=s3://...), and its copy on this machine, in which commands work.

`pull` brings the copy up to date before a command, `push` uploads what it changed. Artefacts are uploaded when they are
finished, snapshots when they are saved, and the rest at the end of the command. Files are uploaded whole. The manifest
of an artefact says "not finished" while its files are uploaded, so a killed command leaves an artefact that the next
one continues, as in a local folder.

The index beside a copy lists its files as they were after the last pull or push. So each side is known to have changed
or not. If both have, the storage counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from detpipe.storage.atomic import replaced, write_json
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_object
from detpipe.storage.file_lock import locked
from detpipe.storage.object_storage import StorageError, address, answering, filesystem, version_of
from detpipe.storage.remote_file import cache_folder

logger = logging.getLogger(__name__)

MANIFEST = re.compile(r"(?:.*[./])?manifest\.json")
_SHARD = re.compile(r"(?:^|/)(\d{4})-of-\d{4}/")
_TRANSFERS = 8
"""Files that are transferred at the same time."""
_LONGEST = 600.0
"""Seconds to wait for another process that transfers files of the same folder."""


@dataclass(frozen=True)
class SyncedFile:
    """A file after a transfer: its version in the storage, and its size and time here."""

    version: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Index:
    """What is known of a copy. url: the address of the folder. files: by their names relative to it."""

    url: str
    files: dict[str, SyncedFile]


class RemoteFolder:
    """A folder in object storage. url: its address. path: its copy here, in the folder of the cache.

    Raises StorageError, from all methods, if the storage does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = address(Path(url))
        digest = blake2b(self.url.encode(), digest_size=6).hexdigest()
        self.path = cache_folder().resolve() / "runs" / f"{PurePosixPath(self.url).name}-{digest}"

    @classmethod
    def of(cls, path: Path) -> RemoteFolder | None:
        """The remote folder whose copy contains this path; None for other paths."""
        runs = cache_folder().resolve() / "runs"
        path = path.resolve()
        if runs not in path.parents:
            return None
        copy = runs / path.relative_to(runs).parts[0]
        index = _read_index(copy)
        return None if index is None else cls(index.url)

    def pull(self, *, task: int | None = None) -> None:
        """Bring the copy up to date. task: of the shards, only this task's are fetched; see `Shards`.

        What changed here and not in the storage, such as the work of a killed command, is kept.
        """
        with self._locked():
            files, there = self._files(), self._there(task)
            fetched = [name for name, version in there.items() if self._is_old(name, version, files)]
            gone = [name for name in files if _is_wanted(name, task) and name not in there]
            for name in gone:
                if self._stat(name) == _stat(files[name]):
                    (self.path / name).unlink()
                del files[name]
            # An artefact must not look finished before it is.
            last = [name for name in fetched if MANIFEST.fullmatch(name)]
            for name in last:
                (self.path / name).unlink(missing_ok=True)
            for names in ([name for name in fetched if name not in last], last):
                self._each(self._fetch, names)
            files.update(self._synced(fetched, there))
            for name in last:
                self._remove_strays(name, there)
            self._write_index(files)
        if fetched:
            logger.info("%s: %d files fetched into %s", self.url, len(fetched), self.path)

    def push(self, *, task: int | None = None, under: Path | None = None) -> int:
        """Upload what changed here; returns the number of files. task: as for `pull`.

        under: only files of this path, and the manifest beside it. Raises OSError if another machine changed the same
        files since the last pull.
        """
        with self._locked():
            files, there = self._files(), self._there(task)
            wanted = [name for name in self._local() if _is_wanted(name, task) and self._is_under(name, under)]
            changed = [name for name in wanted if name not in files or self._stat(name) != _stat(files[name])]
            gone = [
                name
                for name in files
                if _is_wanted(name, task) and self._is_under(name, under) and self._stat(name) is None
            ]
            for name in (*changed, *gone):
                if there.get(name, "") != (files[name].version if name in files else ""):
                    raise OSError(
                        f"{self.url}/{name}: expected the file that this command began with, got another: another "
                        "command has written to this run_dir; run the same command again, which starts from what is "
                        "there"
                    )
            last = [name for name in changed if MANIFEST.fullmatch(name)]
            first = [name for name in changed if name not in last]
            last += [name for name in self._manifests_of(first, wanted) if name not in last]
            for name in last:
                self._announce(name)
            for name in gone:
                with answering(self.url):
                    filesystem(self.url).rm_file(f"{self.url}/{name}")
                del files[name]
            for names in (first, last):
                self._each(self._upload, names)
            files.update(self._synced([*first, *last], self._there(task) if first or last else there))
            self._write_index(files)
        return len(changed) + len(gone)

    def _is_old(self, name: str, version: str, files: Mapping[str, SyncedFile]) -> bool:
        return name not in files or files[name].version != version or self._stat(name) is None

    def _is_under(self, name: str, under: Path | None) -> bool:
        if under is None:
            return True
        path = self.path / name
        return path == under or under in path.parents or path == under.with_suffix(".manifest.json")

    def _local(self) -> list[str]:
        paths = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return [name for path in paths if _is_kept(name := path.relative_to(self.path).as_posix())]

    def _stat(self, name: str) -> tuple[int, int] | None:
        try:
            status = (self.path / name).stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def _there(self, task: int | None) -> dict[str, str]:
        """The versions of the files in the storage, by name."""
        with answering(self.url):
            files = filesystem(self.url)
            files.invalidate_cache()
            prefix = files._strip_protocol(self.url).rstrip("/") + "/"
            found = files.find(self.url, detail=True)
        names = {path.removeprefix(prefix): info for path, info in found.items() if path.startswith(prefix)}
        return {
            name: version_of(info)
            for name, info in names.items()
            if info["type"] == "file" and _is_kept(name) and _is_wanted(name, task)
        }

    def _each(self, work: Callable[[str], None], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            for _ in pool.map(work, names):
                pass

    def _fetch(self, name: str) -> None:
        url = f"{self.url}/{name}"
        with answering(url), replaced(self.path / name) as scratch:
            filesystem(url).get_file(url, str(scratch))

    def _upload(self, name: str) -> None:
        url = f"{self.url}/{name}"
        with answering(url):
            filesystem(url).put_file(str(self.path / name), url)

    def _synced(self, names: Iterable[str], there: Mapping[str, str]) -> dict[str, SyncedFile]:
        """Files after their transfer. there: from a listing, as `pull` will compare: other calls may name versions
        differently."""
        stats = ((name, self._stat(name)) for name in names)
        return {name: SyncedFile(there[name], *stat) for name, stat in stats if stat is not None and name in there}

    def _manifests_of(self, names: Iterable[str], local: Collection[str]) -> list[str]:
        """The manifests of the artefacts that contain these files."""
        parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
        beside = [name.removesuffix(".json") + ".manifest.json" for name in names]
        return [name for name in local if name in beside or (name.endswith("/manifest.json") and name[:-14] in parents)]

    def _announce(self, name: str) -> None:
        """Upload a manifest that says: not finished."""
        text = json.dumps({**_manifest(self.path / name), "complete": False}, indent=2, ensure_ascii=False) + "\n"
        with answering(self.url):
            filesystem(self.url).pipe_file(f"{self.url}/{name}", text.encode("utf-8", "backslashreplace"))

    def _remove_strays(self, manifest: str, there: Collection[str]) -> None:
        """Delete what the copy of a finished artefact has and the storage has not: it is of an earlier artefact."""
        folder = (self.path / manifest).parent
        if not manifest.endswith("/manifest.json") or _manifest(self.path / manifest).get("complete") is not True:
            return
        for path in folder.rglob("*"):
            name = path.relative_to(self.path).as_posix()
            if path.is_file() and name not in there and _is_kept(name):
                path.unlink()

    def _files(self) -> dict[str, SyncedFile]:
        index = _read_index(self.path)
        return {} if index is None else dict(index.files)

    def _write_index(self, files: Mapping[str, SyncedFile]) -> None:
        write_json(_index_of(self.path), asdict(Index(self.url, dict(files))))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f"{self.path.name}.lock"), f"transfers files of {self.url}", wait=_LONGEST):
            yield


def push_finished(path: Path) -> None:
    """Upload a finished artefact or a snapshot, if it is in the copy of a remote folder.

    A storage that does not answer is a warning: the end of the command tries again.
    """
    folder = RemoteFolder.of(path)
    if folder is None:
        return
    try:
        folder.push(under=path.resolve())
    except (OSError, StorageError) as error:
        logger.warning("not uploaded yet: %s", error)


def _is_kept(name: str) -> bool:
    """Whether a file belongs into the storage: no lock, and no temporary or hidden file; no name that leads out."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part != ".hydra" for part in parts)
    return bool(parts) and not hidden and not name.startswith("/") and not parts[-1].endswith((".lock", "lock.mdb"))


def _is_wanted(name: str, task: int | None) -> bool:
    found = _SHARD.search(name)
    return task is None or found is None or int(found[1]) == task


def _manifest(path: Path) -> dict[str, Any]:
    """The values of a manifest; none of a damaged one, which the command that reads it names."""
    try:
        return read_object(path)
    except (OSError, DataclassJsonError):
        return {}


def _stat(file: SyncedFile) -> tuple[int, int]:
    return file.size, file.mtime_ns


def _index_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.json")


def _read_index(copy: Path) -> Index | None:
    try:
        return from_json(read_object(_index_of(copy)), Index, "the index")
    except (OSError, DataclassJsonError):  # damaged: all files are compared again
        return None
