"""`dataset=auto`: finds the format of a folder or file, by asking each format of the table whether it reads it.

A format that reads boxes comes before plain images: almost every data set is a folder of images as well.
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.datasets.entry import Entry
from detpipe.datasets.findings import Finding
from detpipe.datasets.folder_scan import is_hidden, suffix_of
from detpipe.datasets.foreign_formats import MEGADETECTOR, few_files, foreign_format
from detpipe.datasets.formats import FORMATS
from detpipe.datasets.source import DatasetSource, Split
from detpipe.plugins import PluginError
from detpipe.storage.object_storage import address, is_remote
from detpipe.storage.stored_file import children, exists, is_existing_folder

logger = logging.getLogger(__name__)

_WITHOUT_BOXES = "images"
"""The format that counts only if no other fits."""
_ARCHIVES = frozenset({".zip", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz", ".zst"})
_MOST_FOLDERS = 50
"""At most this number of folders is searched for a data set in a folder that is not one itself."""


class UnknownFormatError(ValueError):
    """A folder is in no format that detpipe reads, or in more than one."""


@dataclass(frozen=True)
class Reading:
    """One way to read a folder. word: of `dataset=`. settings, why: as in `Recognised`."""

    word: str
    settings: Mapping[str, object]
    why: str

    def source(self, given: Mapping[str, Any]) -> DatasetSource:
        """The data set. given: settings by name, which win over the found ones."""
        kind = FORMATS.load(self.word)
        made: DatasetSource = kind(**{**self.settings, **given})
        return made

    def text(self, root: Path) -> str:
        """What was found and what it is the same as, in one line, for the log."""
        words = [f"dataset={self.word}", *(f"dataset.{name}={_plain(one)}" for name, one in self.settings.items())]
        return f"{root}: {self.why}; read as {' '.join(map(shlex.quote, words))}"


def find_reading(root: Path, given: Collection[str] = ()) -> Reading:
    """The one way to read a folder or file.

    given: names of settings that the user gave; a format that lacks one of them does not fit. Raises FileNotFoundError
    for a missing path; UnknownFormatError if no format fits, or more than one, with what to give.
    """
    if not exists(root):
        raise FileNotFoundError(f"{root}: expected a data set, got no such file or folder; check dataset.root")
    found, faults = _readings(root)
    if not found and not faults:
        raise UnknownFormatError(_nothing_found(root))
    fitting = [one for one in found if set(given) <= _settings_of(one.word)]
    if found and not fitting and not faults:
        lacking = {one.word: sorted(set(given) - _settings_of(one.word)) for one in found}
        texts = "; ".join(f"{one.why}, and dataset={one.word} has no {lacking[one.word][0]}" for one in found)
        name = next(iter(lacking.values()))[0]
        raise UnknownFormatError(
            f"dataset.{name}: {root} is read as {texts}; name the format, or leave out the setting"
        )
    if len(fitting) == 1 and not faults:
        return fitting[0]
    if len(faults) == 1 and not fitting:
        raise UnknownFormatError(next(iter(faults.values())))
    ways = [f"{one.why}: dataset={one.word}" for one in fitting] + [
        f"{text}: dataset={one}" for one, text in faults.items()
    ]
    raise UnknownFormatError(f"{root}: {len(ways)} formats fit; give one of them ({'; '.join(ways)})")


def recognised_source(root: str | Path, **given: Any) -> DatasetSource:
    """The data set in a folder or file, in the format that is found. Logs what was found.

    given: further settings of the data set. Raises as `find_reading`.
    """
    reading = find_reading(Path(root), given)
    logger.info("%s", reading.text(Path(root)))
    return reading.source(given)


def formats_with(names: Collection[str]) -> list[str]:
    """The formats that have all of these settings, in the order of the table."""
    return [word for word in FORMATS if set(names) <= _settings_of(word)]


@dataclass(kw_only=True)
class AutoSource(DatasetSource):
    """The format is found by the names and contents of the files. A command replaces it by the source of the format."""

    PATHS: ClassVar[tuple[str, ...]] = ("root",)

    root: str
    """Folder of the data set, or its file. Settings of the format that is found may be given, too."""

    def found(self) -> DatasetSource:
        """The source of the format that is found. Raises as `find_reading`."""
        given = {
            field.name: value
            for field in dataclasses.fields(self)
            if field.name != "root" and (value := getattr(self, field.name)) != field.default
        }
        return recognised_source(self.root, **given)

    def has(self, split: Split) -> bool:
        return self.found().has(split)

    def title(self, split: Split) -> str:
        return self.found().title(split)

    def known_classes(self) -> list[str]:
        return self.found().known_classes()

    def entries(self, split: Split) -> Sequence[Entry]:
        return self.found().entries(split)

    def strays(self) -> list[Finding]:
        return self.found().strays()


def _readings(root: Path) -> tuple[list[Reading], dict[str, str]]:
    """The ways to read a path, and the error of each format that it is in without being readable in one way only."""
    found, faults = [], {}
    for word in FORMATS:
        try:
            kind: type[DatasetSource] = FORMATS.load(word)
            one = kind.recognise(root)
        except PluginError as error:
            logger.warning("%s; this format is not tried", error)
            continue
        except ValueError as error:
            faults[word] = str(error)
            continue
        if one is not None:
            found.append(Reading(word, {name: _written(value) for name, value in one.settings.items()}, one.why))
    with_boxes = [one for one in found if one.word != _WITHOUT_BOXES]
    if found and not with_boxes and not faults and is_existing_folder(root):
        if (unread := _annotations_below(root)) is not None:
            faults[_WITHOUT_BOXES] = f"{unread}; to use the images without boxes, give dataset={_WITHOUT_BOXES}"
        elif others := [str(path.relative_to(root)) for path in few_files(root)]:
            names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            found = [dataclasses.replace(one, why=f"{one.why}, and files that are not read: {names}") for one in found]
    return with_boxes or ([] if faults else found), faults


def _written(value: object) -> object:
    """A setting as the user writes it: an address with two slashes, which `Path` makes one."""
    return address(Path(value)) if isinstance(value, str) and is_remote(value) else value


def _annotations_below(root: Path) -> str | None:
    """The fault of a folder that is read as images alone, though a file there has boxes; None without such a file."""
    for path in few_files(root):
        form = foreign_format(path)
        if form is not None and form.name != MEGADETECTOR:
            return f"{path}: expected annotations in a format that detpipe reads, got {form.name}; {form.way}"
        readings = _readings(path)[0] if path.parent != root else []
        if readings:
            images = f" dataset.images_root={root}" if "images_root" in _settings_of(readings[0].word) else ""
            return (
                f"{root}: expected annotations in the folder itself, got {path} ({readings[0].why}); give "
                f"dataset.root={path}{images}"
            )
    return None


def _settings_of(word: str) -> set[str]:
    try:
        return {field.name for field in dataclasses.fields(FORMATS.load(word))}
    except PluginError:
        return set()


def _nothing_found(root: Path) -> str:
    if not is_existing_folder(root):
        form = foreign_format(root)
        got = "a file in no format that detpipe reads; name the format (dataset=...)"
        if suffix_of(root.name) in _ARCHIVES:
            got = "an archive; unpack it, and give the folder"
        return f"{root}: expected a data set, got {got if form is None else f'{form.name}; {form.way}'}"
    names = [path.name for path in children(root) if not is_hidden(path.name)]
    there = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "nothing"
    inner = [path for name in names[:_MOST_FOLDERS] if is_existing_folder(path := root / name)]
    holding = [path for path in inner if any(_readings(path))]
    if holding:
        return f"{root}: expected a data set, got a folder with data sets in it; give dataset.root={holding[0]}" + (
            f" (or {', '.join(str(one) for one in holding[1:5])})" if holding[1:] else ""
        )
    for path in few_files(root):
        if (form := foreign_format(path)) is not None:
            return f"{path}: expected a data set, got {form.name}, and no images; {form.way}"
    if (archive := next((name for name in names if suffix_of(name) in _ARCHIVES), None)) is not None:
        return f"{root / archive}: expected a data set, got an archive; unpack it"
    return (
        f"{root}: expected a data set ({', '.join(one for one in FORMATS if one != 'demo')}), got a folder with "
        f"{there}; check dataset.root, or name the format (dataset=...)"
    )


def _plain(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
