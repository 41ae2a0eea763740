"""Classes by the text "module:Class": tables of them import a class when it is asked for, not before."""

from __future__ import annotations

from importlib import import_module


def load_class(path: str) -> type:
    """The class that "module:Class" names. Raises ImportError or AttributeError where there is none."""
    module, _, name = path.partition(":")
    found: type = getattr(import_module(module), name)
    return found


def class_path_of(cls: type) -> str:
    """The "module:Class" of a class."""
    return f"{cls.__module__}:{cls.__qualname__}"
