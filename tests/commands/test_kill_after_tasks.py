"""Kills of a command between its last task and its end, at each change of the file system: the same command goes on."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detpipe.engines.local import LocalEngine
from detpipe.storage.lmdb_store import LmdbWriter
from tests.command_line import detpipe
from tests.commands.test_tasks import STAGES, in_this_process, made, prepared, words_of

__all__ = ["in_this_process"]
CHANGES = ("mkdir", "rename", "replace", "rmdir", "unlink")
"""The functions of `os` by which pathlib and shutil change a folder. Before `replace`, a new file has all its bytes."""


def state_of(folder: Path) -> str:
    """A digest of the names and bytes of all files and folders."""
    digest = hashlib.blake2b()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def moments(words: list[str], folder: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Run a command in tasks. Returns copies of its folder: what a kill leaves at each moment after the tasks."""
    found: dict[str, Path] = {}
    is_ready = False

    def copy() -> None:
        nonlocal is_ready
        if is_ready:
            is_ready = False  # copying makes folders, too
            if (state := state_of(folder)) not in found:
                found[state] = shutil.copytree(folder, copies / str(len(found)), symlinks=True)
            is_ready = True

    def changed(change: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        copy()
        return change(*arguments, **options)

    commit, run_tasks = LmdbWriter.commit, LocalEngine.run  # that of `in_this_process`

    def committed(writer: LmdbWriter) -> None:
        commit(writer)
        copy()

    def run(*arguments: Any) -> None:
        nonlocal is_ready
        run_tasks(*arguments)
        is_ready = True

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, functools.partial(changed, getattr(os, name)))
        patch.setattr(LmdbWriter, "commit", committed)
        patch.setattr(LocalEngine, "run", run)
        outcome = detpipe(*words)
    assert outcome.status == 0, outcome.err
    return list(found.values())


def slow(name: str, *more: str) -> Any:
    return pytest.param(name, more, marks=pytest.mark.slow)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("make-db", ()),
        *(slow(name) for name in STAGES if name != "make-db"),
        *(slow(name, "merge=false") for name in ("propose", "crop", "make-db")),
        slow("make-db", "num_shards=2"),
    ],
)
def test_a_kill_at_each_moment(
    name: str,
    more: tuple[str, ...],
    voc_root: Path,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = prepared(name, voc_root, finished_run, tmp_path / "run")
    more = ("tasks=2", "engine.processes=1", *more)
    copies = moments([*words_of(name, voc_root, folder), *more], folder, tmp_path / "copies", monkeypatch)
    assert len(copies) > 10  # at least those of the deletion of two shards
    assert not list(folder.rglob("*.shards"))
    for copy in copies:
        outcome = detpipe(*words_of(name, voc_root, copy), *more)
        assert outcome.status == 0, outcome.err
        assert made(copy) == made(folder), copy.name
        assert not list(copy.rglob("*.shards")), copy.name
