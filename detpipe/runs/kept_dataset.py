"""dataset.json: the data set settings that a run folder remembers, so that its commands need no `dataset=...`."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from detpipe.datasets.formats import FORMATS, format_word
from detpipe.datasets.source import DatasetSource
from detpipe.plugins import PluginError
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_dataclass
from detpipe.storage.manifest import plain
from detpipe.storage.object_storage import is_remote
from detpipe.storage.stored_file import exists

logger = logging.getLogger(__name__)

_PLAIN = re.compile(r"\[?[\w./,+-]*\]?")
"""Values that neither the shell nor Hydra reads in another way."""
REMEDY = "give dataset.root=DIR, which replaces the file"


@dataclass(frozen=True, kw_only=True)
class KeptDataset:
    """The content of the file. dataset: the word of `dataset=`. settings: those that differ from their defaults.

    Paths are absolute.
    """

    dataset: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        if self.dataset not in FORMATS:
            raise ValueError(f"dataset: expected one of {', '.join(FORMATS)}, got {self.dataset!r}")


def keep_dataset(folder: RunFolder, source: DatasetSource) -> None:
    """Write the settings of the data set into the run folder, in place of earlier ones.

    Equal ones are not written again. Settings of a class that no other process can import, as of one in a script, can't
    be kept: earlier ones are deleted.
    """
    word = format_word(type(source))
    if word is None:
        folder.dataset.unlink(missing_ok=True)
        return
    kept = KeptDataset(dataset=word, settings=dict(_settings(source)))
    try:
        if read_dataclass(folder.dataset, KeptDataset) == kept:
            return
    except (OSError, DataclassJsonError):  # missing or damaged
        pass
    write_json(folder.dataset, asdict(kept))


def kept_dataset(folder: RunFolder) -> DatasetSource | None:
    """The data set that the run folder remembers; None if it remembers none.

    Raises DataclassJsonError for a damaged file, FileNotFoundError if the data is no longer at its path, and
    PluginError for a format that is missing or broken. All name the file and the remedy.
    """
    path = folder.dataset
    if not path.is_file():
        return None
    kept = read_dataclass(path, KeptDataset, REMEDY)
    try:
        source: DatasetSource = from_json(kept.settings, FORMATS.load(kept.dataset), str(path))
    except DataclassJsonError as error:
        raise DataclassJsonError(f"{error}; {REMEDY}") from error
    except PluginError as error:
        raise PluginError(f"{path}: {error}; or {REMEDY}") from error
    for name, place in [] if source.GENERATED else _paths(source):
        if not exists(Path(place)):
            raise FileNotFoundError(
                f"{path}: expected the data set at dataset.{name}={place}, got no such path; give "
                f"dataset={kept.dataset} dataset.{name}=... with its present path, which replaces the file"
            )
    return source


def carry_dataset(old: RunFolder, new: RunFolder) -> None:
    """Copy the file to a run folder that is made from another one; nothing if it is missing or damaged."""
    try:
        kept = read_dataclass(old.dataset, KeptDataset)
    except (OSError, DataclassJsonError):
        return
    write_json(new.dataset, asdict(kept))


def kept_text(folder: RunFolder, source: DatasetSource) -> str:
    """The kept data set as words of a command line, with its file, for the log."""
    return f"{dataset_words(source)} ({folder.dataset})"


def dataset_words(source: DatasetSource) -> str:
    """The settings of a data set as words of a command line. A value is quoted where the shell or Hydra need it."""
    words = [f"dataset={format_word(type(source))}"]
    for name, value in _settings(source):
        text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
        is_plain = _PLAIN.fullmatch(text) is not None
        words.append(f"dataset.{name}={text}" if is_plain else shlex.quote(f'dataset.{name}="{text}"'))
    return " ".join(words)


def _settings(source: DatasetSource) -> Iterator[tuple[str, Any]]:
    """The name and the plain value of each setting that differs from its default."""
    for field in fields(source):
        value = getattr(source, field.name)
        if field.default is MISSING or value != field.default:
            yield field.name, _absolute(value) if field.name in source.PATHS else plain(value)


def _absolute(value: Any) -> Any:
    if isinstance(value, list):
        return [_absolute(one) for one in value]
    return value if value is None or is_remote(value) else str(Path(value).absolute())


def _paths(source: DatasetSource) -> Iterator[tuple[str, str]]:
    for name in source.PATHS:
        value = getattr(source, name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield name, one
