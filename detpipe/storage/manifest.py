"""Artefacts and their manifests: a key (stage, settings, digests of the inputs), and the rules for a second run.

Same key and complete: nothing to do. Same key and incomplete: resume. Another key: refuse, and name the settings.
An artefact keeps the key that it was made with; later artefacts refer to it by the digest of this key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
import logging
import mmap
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_object
from detpipe.storage.interrupt import Interrupted, StopRequest, stop_on_signal
from detpipe.storage.remote_folder import push_finished
from detpipe.structures import LeftOut

logger = logging.getLogger(__name__)

Settings = dict[str, Any]


class ArtefactError(ValueError):
    """An artefact is missing, unfinished, or made with other settings."""


class Values(dict[str, Any]):
    """Settings or a summary in a manifest. A missing key raises ArtefactError, which names the manifest and the key."""

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), where: str = "manifest") -> None:
        super().__init__(values)
        self.where = where
        for key, value in self.items():
            if isinstance(value, dict):
                self[key] = Values(value, f"{where}: {key}")

    def __missing__(self, key: str) -> Any:
        raise ArtefactError(f"{self.where}: expected a value of {key!r}, got none; {_REMEDY}")


_REMEDY = "give overwrite=true to make it again"
READ_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "propose": {"proposals": dict[str, Any]},
    "crop": {"sampling": dict[str, Any], "crops": dict[str, Any], "classes": list[str], "category_ids": list[int]},
    "features": {
        "extraction": dict[str, Any],
        "regions": dict[str, Any],
        "classes": list[str],
        "category_ids": list[int],
    },
    "make-db": {"num_shards": int, "classes": list[str] | None},
    "detect": {"detect": dict[str, Any]},
}
"""Stage -> types of the settings that other stages read."""
READ_SUMMARIES: Mapping[str, Mapping[str, Any]] = {
    "propose": {"records": int},
    "crop": {"crops": int, "content": str},
    "features": {"regions": int, "width": int},
    "make-db": {"images": int, "content": str},
}
"""Stage -> types of the numbers of its summary that other stages read."""


class State(enum.Enum):
    """The state of an artefact when its stage begins."""

    NEW = "new"
    PARTIAL = "partial"
    COMPLETE = "complete"


@dataclass(kw_only=True)
class Manifest:
    """The key of an artefact (stage, settings, inputs) and a record of how it was made.

    inputs: from name to digest. bad: the images that were left out. summary: numbers for the user. seconds: total time
    of the runs that finished or were stopped by a signal; the time of a killed run is lost. detpipe: package version.
    """

    stage: str
    settings: Settings
    inputs: dict[str, str]
    complete: bool = False
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)
    bad: list[LeftOut] = field(default_factory=list)
    detpipe: str = ""

    @property
    def digest(self) -> str:
        """Digest of the key. Later stages store it as the digest of this input."""
        return digest_of([self.stage, self.settings, self.inputs])


def plain(value: Any) -> Any:
    """Convert a setting to JSON types: dataclasses to mappings, enums to values, tuples to lists, paths to strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def digest_of(value: Any) -> str:
    """Hex digest (blake2b, 128 bits) of a plain value; equal values give equal digests in every process."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def manifest_path(artefact: Path) -> Path:
    """The path of an artefact's manifest: inside a folder, next to a .json file."""
    return artefact / "manifest.json" if artefact.suffix != ".json" else artefact.with_suffix(".manifest.json")


def read_manifest(artefact: Path) -> Manifest:
    """The manifest of a complete artefact. Raises ArtefactError if it is missing, unfinished or unreadable."""
    manifest = find_manifest(artefact)
    if manifest is None:
        raise ArtefactError(f"{artefact}: expected an artefact, got none; run the stage that makes it first")
    if not manifest.complete:
        raise ArtefactError(f"{artefact}: not finished; run `detpipe {manifest.stage}` again to resume it")
    return manifest


def find_manifest(artefact: Path) -> Manifest | None:
    """The manifest of an artefact, complete or not; None without one. Raises ArtefactError for a damaged one."""
    path = manifest_path(artefact)
    try:
        manifest = from_json(read_object(path), Manifest, str(path))
        _check_values(manifest.settings, READ_SETTINGS.get(manifest.stage, {}), f"{path}: settings")
        _check_values(manifest.summary, READ_SUMMARIES.get(manifest.stage, {}), f"{path}: summary")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DataclassJsonError as error:
        found = str(error).removeprefix(f"{path}: ")
        raise ArtefactError(f"{path}: expected a manifest, got: {found}; {_REMEDY}") from error
    manifest.settings = Values(manifest.settings, f"{path}: settings")
    manifest.summary = Values(manifest.summary, f"{path}: summary")
    return manifest


def _check_values(values: Mapping[str, Any], types: Mapping[str, Any], where: str) -> None:
    """Raise DataclassJsonError for a value of another type."""
    for name, kind in types.items():
        if name in values:
            from_json(values[name], kind, f"{where}: {name}")


def rekey(artefact: Path, inputs: Mapping[str, str], summary: Mapping[str, Any]) -> None:
    """Replace the inputs of a complete artefact. The caller must know that they give the same bytes.

    summary: changed numbers, merged into the old summary. Raises the errors of `read_manifest`.
    """
    manifest = read_manifest(artefact)
    if artefact.is_symlink():
        raise ArtefactError(
            f"{artefact}: expected a folder of the run itself, got a link to {artefact.readlink()}; replace the link "
            "by a copy of what it leads to"
        )
    manifest = dataclasses.replace(manifest, inputs=dict(inputs), summary={**manifest.summary, **summary})
    write_json(manifest_path(artefact), dataclasses.asdict(manifest))


@dataclass(eq=False)
class Making:
    """One attempt to make an artefact; see `Artefact.making`. summary: numbers for people. bad: what was left out."""

    path: Path
    state: State
    summary: Mapping[str, Any] = field(default_factory=dict)
    bad: Sequence[LeftOut] = ()

    @property
    def needed(self) -> bool:
        """Whether there is work: false where a complete artefact was found."""
        return self.state is not State.COMPLETE

    @contextlib.contextmanager
    def stoppable(self, kept_in: Path | None = None) -> Iterator[StopRequest]:
        """A block that a signal asks to stop: it should look at the request in its loop and leave the loop.

        Raises Interrupted at the end of the block after a signal. kept_in: where the finished part is, if not in the
        artefact itself.
        """
        with stop_on_signal() as stop:
            yield stop
        if stop:
            raise Interrupted(
                f"what is finished is in {kept_in or self.path}; run the same command again, it continues from there"
            )


Explain = Callable[[str, str], str | None]
LOGS = ("log.jsonl", "log.csv", "lock.mdb")
"""Files of an artefact from which no later attempt continues."""
EMPTY_LMDB = 2 * mmap.PAGESIZE
"""Bytes of a data.mdb without records: two pages of its own description."""


class Artefact:
    """The output of a stage on disk. `begin` prepares it, `finish` marks it as complete.

    path: a folder, or a file that ends in .json. settings: exactly those that change the content. explain: for the
    message about another key, a function from the name of an input and its digest on disk to what has changed; None
    where it does not know.
    """

    def __init__(
        self,
        path: Path,
        *,
        stage: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        explain: Explain | None = None,
    ) -> None:
        self.path, self.explain = path, explain
        # Converted to JSON and back, so that the key compares equal to one that was read from disk.
        self.manifest = Manifest(
            stage=stage,
            settings=json.loads(json.dumps(plain(settings))),
            inputs=dict(inputs),
            detpipe=package_version(),
        )

    def found(self) -> Manifest | None:
        """The manifest on disk, complete or not; None before the first run."""
        return find_manifest(self.path)

    def begin(self, *, overwrite: bool) -> State:
        """Return NEW after deleting any old artefact, PARTIAL to resume, COMPLETE if there is nothing to do.

        A folder in which an earlier run failed before it made anything is NEW also for another key.
        Raises ArtefactError if an artefact with another key exists and `overwrite` is false, and always for files
        without a manifest, which detpipe did not make and does not delete.
        """
        found = None if overwrite else find_manifest(self.path)
        if found is not None and found.complete and not self.path.exists():
            found = None  # The file was deleted, but not its manifest.
        if found is not None and not same_key(found, self.manifest) and self._is_unmade(found):
            found = None
        if found is None:
            self.refuse_foreign()
            self._remove()
            self._write()
            logger.debug("%s: new, key %s", self.path, self.manifest.digest)
            return State.NEW
        self.refuse_other_key(found)
        self.manifest = found
        if found.complete:
            logger.debug("%s: is complete, key %s, made in %.1f s", self.path, found.digest, found.seconds)
            return State.COMPLETE
        self._refuse_links()
        logger.debug("%s: is partial, key %s, after %.1f s", self.path, found.digest, found.seconds)
        return State.PARTIAL

    def refuse_other_key(self, found: Manifest) -> None:
        """Raise ArtefactError, which names the differences, if the manifest on disk has another key."""
        if not same_key(found, self.manifest):
            other = "settings" if found.settings != self.manifest.settings else "data"
            raise ArtefactError(
                f"{self.path}: made with other {other}: {'; '.join(differences(found, self.manifest, self.explain))}. "
                "Give overwrite=true to make it again, or another run_dir"
            )

    @contextlib.contextmanager
    def making(self, *, overwrite: bool) -> Iterator[Making]:
        """Make the artefact in the block of a `with`, unless it is there: begin, timing, and finish.

        The block asks `making.needed`, and sets `making.summary` and `making.bad`. At its end the manifest is complete.
        After Interrupted the time is counted, and the artefact stays partial; after another error it stays as it is.
        Raises ArtefactError as `begin`.
        """
        making = Making(self.path, self.begin(overwrite=overwrite))
        begun = time.perf_counter()
        try:
            yield making
        except Interrupted:
            if making.needed:
                self.pause(time.perf_counter() - begun)
            raise
        if making.needed:
            self.finish(seconds=time.perf_counter() - begun, summary=making.summary, bad=making.bad)

    def refuse_foreign(self) -> None:
        """Raise ArtefactError if something exists without a manifest, which detpipe did not make and must keep."""
        if self._is_foreign():
            raise ArtefactError(f"{self.path}: exists without a manifest, so detpipe didn't make it; move it away")

    def pause(self, seconds: float) -> None:
        """Add the time of a run that was stopped by a signal."""
        self.manifest.seconds += seconds
        self._write()
        push_finished(self.path)

    def finish(self, *, seconds: float, summary: Mapping[str, Any], bad: Sequence[LeftOut] = ()) -> Manifest:
        """Mark the artefact as complete. All of it must be on disk."""
        self.manifest.seconds = round(self.manifest.seconds + seconds, 3)
        self.manifest.summary = dict(summary)
        self.manifest.bad = list(bad)
        self.manifest.complete = True
        self._write()
        push_finished(self.path)
        logger.debug("%s: complete after %.1f s", self.path, self.manifest.seconds)
        return self.manifest

    def _write(self) -> None:
        write_json(manifest_path(self.path), dataclasses.asdict(self.manifest))

    def _is_foreign(self) -> bool:
        """Whether something without a manifest exists here that no run of this stage can have left."""
        if manifest_path(self.path).is_file():  # it may be unreadable
            return False
        if not self.path.is_dir():
            return self.path.exists()
        # A run that was killed before it wrote the manifest leaves an empty folder, or the manifest's temporary file.
        scratch = f".{manifest_path(self.path).name}."
        return any(not child.name.startswith(scratch) for child in self.path.iterdir())

    def _is_unmade(self, found: Manifest) -> bool:
        """Whether a folder has nothing to continue from: an earlier run failed before it made anything."""
        # The parts of a .json artefact are in another place.
        if found.complete or found.stage != self.manifest.stage or not self.path.is_dir():
            return False
        files = [path for path in self.path.rglob("*") if path.is_symlink() or not path.is_dir()]
        return all(
            path.name in LOGS
            or path.name.lstrip(".").startswith(manifest_path(self.path).name)
            or path.lstat().st_size == 0
            or (path.name == "data.mdb" and path.lstat().st_size == EMPTY_LMDB)
            for path in files
        )

    def _refuse_links(self) -> None:
        """Raise ArtefactError if an unfinished artefact is, or contains, a link: it would be written through it."""
        inside = self.path.rglob("*") if self.path.is_dir() and not self.path.is_symlink() else ()
        for path in (self.path, *inside):
            if path.is_symlink():
                raise ArtefactError(
                    f"{path}: expected what an earlier run left, got a link to {path.readlink()}; {_REMEDY}"
                )

    def _remove(self) -> None:
        # A kill during the deletion must not leave a part of an artefact under its name. So a folder is renamed before
        # it is deleted, and a file is deleted before its manifest, which is ignored without the file.
        trash = self.path.with_name(f".{self.path.name}.deleted")
        if trash.exists():
            shutil.rmtree(trash)
        if self.path.is_symlink():
            self.path.unlink()  # Its target stays, because it is outside this run folder.
        elif self.path.is_dir():
            self.path.rename(trash)
            shutil.rmtree(trash)
        else:
            self.path.unlink(missing_ok=True)
        manifest_path(self.path).unlink(missing_ok=True)


def same_key(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests have the same key. Paths in settings named "weights" are not compared.

    The digest of the weights is among the inputs, and the run folder that contains them may have been moved.
    """
    keys = ([each.stage, _anywhere(each.settings), each.inputs] for each in (one, other))
    return digest_of(next(keys)) == digest_of(next(keys))


def _anywhere(settings: Any) -> Any:
    """The settings with each path of weights replaced by a constant; names such as imagenet stay."""
    if not isinstance(settings, Mapping):
        return settings
    return {
        name: "a path" if name == "weights" and _is_path(value) else _anywhere(value)
        for name, value in settings.items()
    }


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and len(Path(value).parts) > 1


def differences(old: Manifest, new: Manifest, explain: Explain | None = None) -> list[str]:
    """The parts of the keys that differ, as "name: old -> new", at most five; long values are shortened.

    explain: from the name of an input and its old digest to a sentence in place of the digests; see `Artefact`.
    """
    changed = [name for name in new.inputs if old.inputs.get(name, new.inputs[name]) != new.inputs[name]]
    told = {name: text for name in changed if explain and (text := explain(name, old.inputs[name]))}
    before, after = _flat(_without(old, told)), _flat(_without(new, told))
    # "none", not None: a missing setting differs from one that is null.
    names = sorted(n for n in before.keys() | after.keys() if before.get(n, "none") != after.get(n, "none"))
    lines = [_difference(name, before.get(name, "none"), after.get(name, "none")) for name in names[:5]]
    return [*told.values(), *lines] + ([f"and {len(names) - 5} more"] if len(names) > 5 else [])


def _without(manifest: Manifest, inputs: Collection[str]) -> Manifest:
    left = {name: digest for name, digest in manifest.inputs.items() if name not in inputs}
    return dataclasses.replace(manifest, inputs=left)


def _difference(name: str, before: Any, after: Any) -> str:
    if name.startswith("input ") and all(_DIGEST.fullmatch(str(value)) for value in (before, after)):
        return f"{name} changed"  # two digests would tell nobody more
    return f"{name}: {_short(before)} -> {_short(after)}"


_DIGEST = re.compile("[0-9a-f]{32,}")
LONGEST = 100
"""Limit on the characters of a value in a message, because priors are lists of hundreds of numbers."""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _flat(manifest: Manifest) -> dict[str, Any]:
    flat: dict[str, Any] = {f"input {name}": digest for name, digest in manifest.inputs.items()}
    flat["stage"] = manifest.stage

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and (value or not prefix):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value

    walk("", manifest.settings)
    return flat


def package_version() -> str:
    """detpipe's version, or "unknown" if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # imports email, for commands that need no version

    try:
        return version("detpipe")
    except PackageNotFoundError:
        return "unknown"
