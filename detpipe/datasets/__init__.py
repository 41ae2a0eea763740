"""Readers and writers of data sets. All file formats are handled here."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Mapping
from enum import Enum
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from detpipe.class_path import load_class

if TYPE_CHECKING:
    from detpipe.datasets.source import DatasetSource
    from detpipe.structures import Dataset

SOURCES = {
    "voc": "detpipe.datasets.voc:VocSource",
    "coco": "detpipe.datasets.coco:CocoSource",
    "images": "detpipe.datasets.image_list:ImageFolderSource",
    "demo": "detpipe.datasets.demo:DemoSource",
}
"""The class of each kind of data set. It is imported on use, so that one format doesn't load what the others need."""


def load_dataset(kind: str, split: str = "test", **settings: Any) -> Dataset:
    """Load a split of a data set.

    kind: "voc", "coco", "images" (a folder of images, or one image) or "demo". split: "train", "val" or "test".
    settings: the fields of VocSource, CocoSource, ImageFolderSource or DemoSource, as in
    `load_dataset("voc", root="my/folder")`. Paths may be Path objects, enums their values.
    Raises ValueError for an unknown kind or split, TypeError for an unknown or missing setting and one of another type,
    all with the name of the argument, and the errors of the source's `load`.
    """
    from detpipe.datasets.source import Split

    splits = [one.value for one in Split]
    split = split.value if isinstance(split, Split) else split
    if not isinstance(split, str) or split not in splits:
        raise ValueError(f"split: expected {', '.join(splits)}, got {split!r}")
    if not isinstance(kind, str) or kind not in SOURCES:
        raise ValueError(f"kind: expected {', '.join(SOURCES)}, got {kind!r}")
    cls = load_class(SOURCES[kind])
    source: DatasetSource = cls(**_checked_settings(kind, cls, settings))
    return source.load(Split(split))


def _checked_settings(kind: str, cls: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their types checked: paths as text, enums by their value, whole numbers also for floats."""
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in settings:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(fields)}"
            raise TypeError(f"{name}: expected a setting of {kind!r}, got an unknown name; {hint}")
    for name, field in fields.items():
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if is_required and name not in settings:
            raise TypeError(f"{name}: expected a value for {kind!r}, got none; give {name}=...")
    return {name: _checked_value(name, hints[name], value) for name, value in settings.items()}


def _checked_value(name: str, hint: Any, value: Any) -> Any:
    if hint is Any:
        return value  # the class checks it
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and NoneType in kinds:
        return None
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            if value in [*kind, *(one.value for one in kind)]:
                return kind(value)
            raise ValueError(f"{name}: expected {', '.join(str(one.value) for one in kind)}, got {value!r}")
        if kind is str and isinstance(value, PathLike):
            return fspath(value)
        if get_origin(kind) is list:
            (inner,) = get_args(kind)
            if isinstance(value, list | tuple) and all(isinstance(one, inner) for one in value):
                return list(value)
        elif kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        elif isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
    names = " or ".join(str(kind) if get_origin(kind) else kind.__name__ for kind in kinds if kind is not NoneType)
    raise TypeError(f"{name}: expected {names}, got {type(value).__name__} {reprlib.repr(value)}")
