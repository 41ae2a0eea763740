"""The settings of a command as plain data, so that they can be sent to another process without its code."""

from __future__ import annotations

import dataclasses
import enum
import typing
from typing import Any

from detpipe.class_path import class_path_of, load_class
from detpipe.storage.dataclass_json import from_json
from detpipe.storage.manifest import plain

_KEYS = {"class", "fields"}


def to_plain(value: Any) -> Any:
    """Settings as JSON types: a dataclass becomes {"class": "module:Class", "fields": {...}}, also inside of others."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: to_plain(getattr(value, one.name)) for one in dataclasses.fields(value) if one.init}
        return {"class": class_path_of(type(value)), "fields": fields}
    if isinstance(value, (list, tuple)):
        return [to_plain(one) for one in value]
    return plain(value)


def from_plain(value: Any, hint: Any = Any) -> Any:
    """The inverse of `to_plain`. hint: the type, where it is not in the data. The checks of the dataclasses run.

    Raises DataclassJsonError for values of another type, ImportError or AttributeError for a class that is missing.
    """
    if isinstance(value, dict) and value.keys() == _KEYS:
        cls = load_class(value["class"])
        hints = typing.get_type_hints(cls)
        return cls(**{name: from_plain(one, hints[name]) for name, one in value["fields"].items()})
    if isinstance(value, list) and any(isinstance(one, dict) and one.keys() == _KEYS for one in value):
        made = [from_plain(one) for one in value]
        return tuple(made) if typing.get_origin(hint) is tuple else made
    if value is None or hint is Any:
        return value
    if isinstance(hint, type) and issubclass(hint, enum.Enum):  # also one of texts, which from_json takes for a text
        return hint(value)
    return from_json(value, hint, "settings")
