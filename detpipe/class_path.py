"""Classes and functions by the text "module:name": a table of them imports one when it is asked for, not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load_object(path: str) -> Any:
    """What "module:name" names. Raises ImportError or AttributeError where there is none."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def load_class(path: str) -> type:
    """The class that "module:Class" names. Raises ImportError or AttributeError where there is none."""
    found: type = load_object(path)
    return found


def class_path_of(cls: type) -> str:
    """The "module:Class" of a class."""
    return f"{cls.__module__}:{cls.__qualname__}"
