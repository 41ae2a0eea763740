"""Reads detpipe's own JSON files and checks them: unknown keys, missing keys and wrong types are errors.

The files may be damaged: every reader of them goes through this module, and names the file, the key and what to do.
"""

from __future__ import annotations

import enum
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

from detpipe.storage.input_file import InputFileError, read_input
from detpipe.structures import ImageId

if TYPE_CHECKING:
    import cattrs

Read = TypeVar("Read")


_MOST_FAULTS, _LONGEST_FAULT = 5, 300
"""Faults of one file that a message names, and letters of each."""


class DataclassJsonError(ValueError):
    """JSON does not describe the dataclass. The message names each wrong key and its fault."""


def read_dataclass(path: Path, cls: type[Read], remedy: str = "") -> Read:
    """Read the dataclass `cls` from the JSON object in a file.

    remedy: what to do about a damaged file; the end of the message. Raises DataclassJsonError, which names the file and
    the keys, and FileNotFoundError for a missing file.
    """
    values = read_object(path, remedy)
    return _with_remedy(lambda: from_json(values, cls, str(path)), remedy)


def read_value(path: Path, cls: type[Read], remedy: str = "") -> Read:
    """Read any JSON value from a file: as `read_dataclass`, also for lists, mappings and numbers."""
    values = _with_remedy(lambda: _parsed(path, "JSON"), remedy)
    return _with_remedy(lambda: from_json(values, cls, str(path)), remedy)


def read_object(path: Path, remedy: str = "") -> dict[str, Any]:
    """Read the JSON object in a file, unchecked. Raises as `read_dataclass`."""

    def read() -> dict[str, Any]:
        values = _parsed(path, "a JSON object")
        if not isinstance(values, dict):
            raise DataclassJsonError(f"{path}: expected a JSON object, got {str(values)[:100]}")
        return values

    return _with_remedy(read, remedy)


def _parsed(path: Path, expected: str) -> Any:
    try:
        text = read_input(path, expected).decode("utf-8")
        return json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
    except InputFileError as error:
        raise DataclassJsonError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise DataclassJsonError(f"{path}: expected {expected}, got: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _refuse_number(text: str) -> float:
    """NaN and infinity are not JSON, and can't be written again."""
    raise ValueError(f"the number {text[:20]}, which is not finite")


def _with_remedy(read: Callable[[], Read], remedy: str) -> Read:
    try:
        return read()
    except DataclassJsonError as error:
        if not remedy:
            raise
        raise DataclassJsonError(f"{error}; {remedy}") from error


def from_json(values: Any, cls: type[Read], where: str) -> Read:
    """Build the dataclass `cls` from JSON values. It may contain dataclasses, enums, tuples, lists and mappings.

    cls may also be such a tuple, list or mapping.
    Numbers, strings and booleans are not converted into each other; only an int is accepted for a float. The checks in
    `__post_init__` run. where: the start of the message, usually the file.
    Raises DataclassJsonError, which names each wrong key.
    """
    try:
        return _converter().structure(values, cls)
    except Exception as error:  # cattrs groups the errors of the fields' checks, which may be of any class
        from cattrs import transform_error

        name = getattr(cls, "__name__", str(cls))
        faults = transform_error(error, path=name, format_exception=_sentence)
        text = "; ".join(map(_shortened, faults[:_MOST_FAULTS]))
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise DataclassJsonError(f"{where}: {text}{more}") from error


def _shortened(fault: str) -> str:
    """A fault may quote a key or a value of any length."""
    return fault if len(fault) <= _LONGEST_FAULT else f"{fault[:_LONGEST_FAULT]} …"


@functools.cache
def _converter() -> cattrs.Converter:
    import cattrs  # imported on use: every command imports this module, and few read a file with it at once

    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook_func(lambda cls: isinstance(cls, type) and issubclass(cls, enum.Enum), _member)
    converter.register_structure_hook_func(lambda cls: cls == dict[str, Any], lambda value, _: _exactly(value, dict))
    converter.register_structure_hook_func(lambda cls: cls == ImageId, lambda value, _: _image_id(value))
    _refuse_other_containers(converter)
    return converter


def _refuse_other_containers(converter: cattrs.Converter) -> None:
    """Refuse strings for lists and tuples, and lists for mappings.

    cattrs accepts any iterable: "ab" would become ["a", "b"].
    """

    def hook(cls: Any, _: cattrs.BaseConverter) -> Callable[[Any, Any], Any]:
        structure = usual.get_structure_hook(cls)
        kind_in_json = dict if get_origin(cls) is dict else list
        return lambda value, kind: structure(_exactly(value, kind_in_json), kind)

    usual = converter.copy()
    converter.register_structure_hook_factory(_is_container, hook)


def _is_container(cls: Any) -> bool:
    return get_origin(cls) in (list, tuple, dict)


def _member(value: Any, cls: type[enum.Enum]) -> enum.Enum:
    """The member of an enum with this value."""
    try:
        return cls(value)
    except ValueError:
        names = ", ".join(str(one.value) for one in cls)
        raise ValueError(f"expected one of {names}, got {str(value)[:100]!r}") from None


def _image_id(value: Any) -> ImageId:
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise TypeError(f"expected an image id, got {str(value)[:100]!r}")
    return value


def _sentence(error: BaseException, kind: type | None) -> str:
    """The fault of one value: the message of the check that refused it, else cattrs' description."""
    from cattrs.v import format_exception

    own = type(error) in (ValueError, TypeError) and str(error)
    return own or format_exception(error, kind)


def _exactly(value: Any, kind: type) -> Any:
    """Return the value if it has this type. cattrs would convert other types: bool("false") is True."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {kind.__name__}, got {str(value)[:100]!r}")
    return value
