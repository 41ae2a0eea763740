"""`run_dir=s3://...` on a command line: the words with the path of the folder's copy on this machine.

It is done before anything else reads the words. So every command works in a local folder, and its files, settings and
messages are the same as for a run folder of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detpipe.commands.table import CommandRow
from detpipe.console import RESULT
from detpipe.overrides import split_words
from detpipe.storage.object_storage import StorageError, is_remote
from detpipe.storage.remote_folder import RemoteFolder, logger

FOLDERS = ("run_dir", "against")
"""The settings that name a run folder. A command writes only into the first."""


@dataclass(frozen=True)
class RemoteRun:
    """The words of a command. run: the folder in object storage of its run_dir, if there is one. others: of the rest.

    task: the task of the command, if it runs only one; see `RemoteFolder.pull`.
    """

    words: list[str]
    run: RemoteFolder | None
    others: tuple[RemoteFolder, ...] = ()
    task: int | None = None

    def pull(self) -> None:
        """Bring the copies up to date."""
        for folder in self.others:
            folder.pull()
        if self.run is not None:
            self.run.pull(task=self.task)

    def push(self) -> None:
        """Upload what the command wrote. Call it also after an error. Raises OSError, with what to do."""
        if self.run is None:
            return
        try:
            count = self.run.push(task=self.task)
        except (OSError, StorageError) as error:
            raise OSError(
                f"{error}. The results are in {self.run.path}; the same command uploads what is missing"
            ) from error
        if count:
            logger.log(RESULT, "%d files uploaded -> %s", count, self.run.url)


def with_local_copies(row: CommandRow, words: Sequence[str]) -> RemoteRun:
    """The words with local paths in place of addresses of run folders."""
    result: list[str] = []
    folders: dict[str, RemoteFolder] = {}
    for word, is_value in split_words(words):
        name, equals, value = word.lstrip("+").partition("=")
        if not equals and row.argument in FOLDERS:
            name, value = row.argument, word
        value = value.strip("\"'")
        if name in FOLDERS and not is_value and is_remote(value):
            folders[name] = RemoteFolder(value)
            word = f"{name}={folders[name].path}"
        result.append(word)
    run = folders.pop(FOLDERS[0], None)
    return RemoteRun(result, run, tuple(folders.values()), _task(words))


def _task(words: Sequence[str]) -> int | None:
    values = [value for name, _, value in (word.partition("=") for word in words) if name == "task"]
    return int(values[-1]) if values and values[-1].isdecimal() else None
