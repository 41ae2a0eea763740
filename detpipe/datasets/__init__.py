"""Readers and writers of data sets. All file formats are handled here."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from detpipe.arguments import checked
from detpipe.datasets.formats import FORMATS

if TYPE_CHECKING:
    from detpipe.datasets.loaded_dataset import LoadedDataset
    from detpipe.datasets.source import DatasetSource


def load_dataset(
    kind: str | PathLike[str] | DatasetSource | type[DatasetSource], split: str = "test", **settings: Any
) -> LoadedDataset:
    """Load a split of a data set. It is a sequence of images with their objects.

    kind: a folder or file, whose format is found, as in `load_dataset("my/folder")`; or a word of `dataset=`: "voc",
    "coco", "yolo", "images" (a folder of images, or one image) and others; or a format of another package: its word,
    its class, or an object (docs/plugins.md). split: "train", "val" or "test". settings: the settings of the format, as
    in `load_dataset("voc", root="my/folder")`. Paths may be Path objects, enums their values.
    Raises ValueError for an unknown kind or split, and for a path in no format or in several; TypeError for an unknown
    or missing setting and one of another type, both with the name of the argument; and the errors of `load`.
    """
    from detpipe.datasets.loaded_dataset import LoadedDataset
    from detpipe.datasets.source import Split

    splits = [one.value for one in Split]
    split = split.value if isinstance(split, Split) else split
    if not isinstance(split, str) or split not in splits:
        raise ValueError(f"split: expected {', '.join(splits)}, got {split!r}")
    source = _source(kind, settings)
    return LoadedDataset.of(source.load(Split(split)), source)


def _source(kind: object, settings: Mapping[str, Any]) -> DatasetSource:
    from detpipe.datasets.source import DatasetSource

    if isinstance(kind, DatasetSource):
        return dataclasses.replace(kind, **_checked_settings(type(kind).__name__, type(kind), settings, whole=False))
    if isinstance(kind, type) and issubclass(kind, DatasetSource):
        word, cls = kind.__name__, kind
    else:
        word, settings = _format(kind, settings)
        FORMATS.check_word(word)
        cls = FORMATS.load(word)
    source: DatasetSource = cls(**_checked_settings(word, cls, settings))
    return source


def _format(kind: object, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The word of a format and its settings, of which `settings` win over those that are found in a folder."""
    from detpipe.datasets.auto import find_reading
    from detpipe.storage.stored_file import exists

    if isinstance(kind, str) and kind in FORMATS:
        return kind, dict(settings)
    if not isinstance(kind, (str, PathLike)) or not exists(Path(kind)):
        raise ValueError(f"kind: expected a path of a data set, or one of {', '.join(FORMATS)}, got {kind!r}")

    reading = find_reading(Path(kind), settings)
    return reading.word, {**reading.settings, **settings}


def _checked_settings(kind: str, cls: type[Any], settings: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """The settings with their types checked: paths as text, enums by their value, whole numbers also for floats.

    whole: all settings that the format needs must be there.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in settings:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(fields)}"
            raise TypeError(f"{name}: expected a setting of {kind!r}, got an unknown name; {hint}")
    for name, field in fields.items():
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if whole and is_required and name not in settings:
            raise TypeError(f"{name}: expected a value for {kind!r}, got none; give {name}=...")
    return {name: checked(name, hints[name], value) for name, value in settings.items()}
