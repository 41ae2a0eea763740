"""Reads a JSON object as a dataclass and checks it: unknown keys, missing keys and wrong types are errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

import cattrs
from cattrs import transform_error
from cattrs.v import format_exception

Read = TypeVar("Read")


class DataclassJsonError(ValueError):
    """JSON does not describe the dataclass. The message names each wrong key and its fault."""


def read_dataclass(path: Path, cls: type[Read]) -> Read:
    """Read the dataclass `cls` from the JSON object in a file.

    Raises DataclassJsonError, which names the file and the keys, and FileNotFoundError for a missing file.
    """
    return from_json(read_object(path), cls, str(path))


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file. Raises DataclassJsonError for other content, FileNotFoundError for no file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataclassJsonError(f"{path}: expected a JSON object, got: {error}") from error
    if not isinstance(values, dict):
        raise DataclassJsonError(f"{path}: expected a JSON object, got {str(values)[:100]}")
    return values


def from_json(values: Mapping[str, Any], cls: type[Read], where: str) -> Read:
    """Build the dataclass `cls` from JSON values. It may contain dataclasses, enums, tuples, lists and mappings.

    Numbers, strings and booleans are not converted into each other; only an int is accepted for a float. The checks in
    `__post_init__` run. where: the start of the message, usually the file.
    Raises DataclassJsonError, which names each wrong key.
    """
    try:
        return _CONVERTER.structure(values, cls)
    except Exception as error:  # cattrs groups the errors of the fields' checks, which may be of any class
        faults = "; ".join(transform_error(error, path=cls.__name__, format_exception=_sentence))
        raise DataclassJsonError(f"{where}: {faults}") from error


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook_func(lambda cls: cls == dict[str, Any], lambda value, _: _exactly(value, dict))
    _refuse_texts_as_lists(converter)
    return converter


def _refuse_texts_as_lists(converter: cattrs.Converter) -> None:
    """Refuse strings for lists and tuples. cattrs accepts any iterable: "ab" would become ["a", "b"]."""

    def hook(cls: Any, _: cattrs.BaseConverter) -> Callable[[Any, Any], Any]:
        structure = usual.get_structure_hook(cls)
        return lambda value, kind: structure(_exactly(value, list), kind)

    usual = converter.copy()
    converter.register_structure_hook_factory(_is_list, hook)


def _is_list(cls: Any) -> bool:
    return get_origin(cls) in (list, tuple)


def _sentence(error: BaseException, kind: type | None) -> str:
    """The fault of one value: the message of the check that refused it, else cattrs' description."""
    own = type(error) in (ValueError, TypeError) and str(error)
    return own or format_exception(error, kind)


def _exactly(value: Any, kind: type) -> Any:
    """Return the value if it has this type. cattrs would convert other types: bool("false") is True."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {kind.__name__}, got {str(value)[:100]!r}")
    return value


_CONVERTER = _converter()
