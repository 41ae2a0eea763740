"""Checks arguments of the Python API against their types, so that a wrong one is named before it is used.

The command line does not need this: Hydra checks the types of its settings.
"""

from __future__ import annotations

import dataclasses
import numbers
import reprlib
from enum import Enum
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def checked_fields(instance: Any) -> None:
    """Check the fields of a dataclass instance by their types, and store what `checked` makes of them.

    Call it in `__post_init__`. Raises as `checked`.
    """
    hints = get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        object.__setattr__(instance, field.name, checked(field.name, hints[field.name], getattr(instance, field.name)))


def checked(name: str, hint: Any, value: Any) -> Any:
    """The value as this type: a path becomes text, a value of an enum its member, a whole number also a float.

    Types other than numbers, texts, enums, lists of them and unions are not checked.
    Raises ValueError for a text that is not a value of an enum, and TypeError for another type. Both name the argument.
    """
    kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    if value is None and NoneType in kinds:
        return None
    errors = []
    for kind in kinds:
        if kind is not NoneType:
            try:
                return _as_kind(name, kind, value)
            except (TypeError, ValueError) as error:
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise _wrong_type(name, kinds, value)


def _as_kind(name: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        if not isinstance(value, list | tuple):
            raise _wrong_type(name, (kind,), value)
        return [checked(f"{name}[{index}]", inner, one) for index, one in enumerate(value)]
    if not isinstance(kind, type) or not issubclass(kind, (Enum, str, bool, int, float)):
        return value
    if issubclass(kind, Enum):
        if value in [*kind, *(one.value for one in kind)]:
            return kind(value)
        raise ValueError(f"{name}: expected {', '.join(str(one.value) for one in kind)}, got {reprlib.repr(value)}")
    if kind is str and isinstance(value, PathLike):
        return fspath(value)
    if kind is str and isinstance(value, str):
        return value
    if isinstance(value, bool):
        if kind is bool:
            return value
    # numpy's numbers are of these kinds, too.
    elif kind is int and isinstance(value, numbers.Integral):
        return int(value)
    elif kind is float and isinstance(value, numbers.Real):
        return float(value)
    raise _wrong_type(name, (kind,), value)


def _wrong_type(name: str, kinds: tuple[Any, ...], value: Any) -> TypeError:
    names = " or ".join(str(kind) if get_origin(kind) else kind.__name__ for kind in kinds if kind is not NoneType)
    return TypeError(f"{name}: expected {names}, got {type(value).__name__} {reprlib.repr(value)}")
