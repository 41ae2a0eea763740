"""Classes and functions by their path "module:name", so that tables can name them without importing them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load_object(path: str) -> Any:
    """Import the object "module:name". Raises ImportError or AttributeError if it does not exist."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def load_class(path: str) -> type:
    """Import the class "module:Class". Raises ImportError or AttributeError if it does not exist."""
    found: type = load_object(path)
    return found


def class_path_of(cls: type) -> str:
    """The path "module:Class" of a class."""
    return f"{cls.__module__}:{cls.__qualname__}"
