"""Tables that other packages extend: a word of the command line -> the class that it means.

A word may be a row of this package's table, an entry point of an installed package, or the class itself as
"package.module:Class". Nothing is imported before a word is used. docs/plugins.md explains it to users.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from detpipe.class_path import class_path_of, load_class, load_object

ALLOWED = "DETPIPE_PLUGINS"
"""The environment variable with what files may name: "module:Class" names, packages and modules, between commas."""
OWN = "detpipe"
_CLASS_PATH = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
_OF_PACKAGE = re.compile(r"[^@:]+@[^@:]+")


class PluginError(ImportError):
    """A plug-in that is missing, broken, of the wrong class, or named by a file without the user's word."""


@dataclass(frozen=True)
class Declared:
    """An entry point. path: "module:Class". package, version: of the distribution that declares it."""

    word: str
    path: str
    package: str
    version: str

    @property
    def reference(self) -> str:
        """The word with its package, as it is stored: "centres@my-heads"."""
        return f"{self.word}@{self.package}"


class PluginTable(MutableMapping[str, str]):
    """Word -> "module:Class". It iterates over the rows, then the words of installed packages that do not clash.

    `in` and `[]` also take "word@package" and "module:Class". `[]` raises KeyError for an unknown word, PluginError for
    a word of several packages and for a package that is not installed.
    """

    def __init__(self, setting: str, group: str, base: str, rows: Mapping[str, str]) -> None:
        """setting: as typed, for messages. group: of entry points. base: "module:Class" of the class that all derive
        from; "" for functions. rows: of this package."""
        self.setting = setting
        self.group = group
        self.rows = dict(rows)
        self.typed: list[str] = []
        """The "module:Class" names of the present command line."""
        self._base = base

    def with_rows(self, rows: Mapping[str, str]) -> PluginTable:
        """The same table with more rows."""
        return PluginTable(self.setting, self.group, self._base, {**rows, **self.rows})

    def installed(self) -> Mapping[str, list[Declared]]:
        """The entry points of the group by word."""
        return _declared(tuple(sys.path)).get(self.group, {})

    def __iter__(self) -> Iterator[str]:
        yield from self.rows
        yield from (word for word, found in self.installed().items() if len(found) == 1 and word not in self.rows)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, word: object) -> bool:
        if word in self.rows:
            return True
        return isinstance(word, str) and (is_plugin_name(word) or word in self.installed())

    def __setitem__(self, word: str, path: str) -> None:
        self.rows[word] = path

    def __delitem__(self, word: str) -> None:
        del self.rows[word]

    def __getitem__(self, word: str) -> str:
        if word in self.rows:
            return self.rows[word]
        return word if is_class_path(word) else self._entry(word).path

    def check_word(self, word: str) -> None:
        """Check a word that the user typed, and allow the class if it is a "module:Class".

        Raises PluginError for a word that two packages declare, this one included. A row is otherwise found without a
        look at the installed packages, so that no package can change what is stored in a run folder.
        """
        if is_class_path(word):
            allow(word)
            self.typed.append(word)
        elif word in self.rows and word in self.installed():
            raise PluginError(self._clash(word, OWN))
        elif word not in self.rows and word in self:
            self._entry(word)

    def load(self, word: str) -> Any:
        """The class of a word. Raises KeyError and PluginError as `[]`, and PluginError for a plug-in that is broken,
        of the wrong class, or a "module:Class" that is neither imported, nor typed, nor in DETPIPE_PLUGINS."""
        if word in self.rows:
            return load_class(self.rows[word])
        if is_class_path(word):
            found, what = _typed(self.setting, word), "this class"
        else:
            entry = self._entry(word)
            what = f"the entry point {entry.word} = {entry.path} of the package {entry.package}"
            found = _imported(entry.path) or _loaded(f"{self.setting}={word}: {what}", entry.path)
        if not self._fits(found):
            expected = f"a subclass of {self._base}" if self._base else "a function"
            raise PluginError(f"{self.setting}={word}: expected {expected}, got {found!r}; correct {what}")
        return found

    def _fits(self, found: object) -> bool:
        if not self._base:
            return callable(found)
        return isinstance(found, type) and issubclass(found, load_class(self._base))

    def stored(self, word: str) -> str:
        """The name of a word in files: an installed plug-in gets its package. Raises as `[]`."""
        return word if word in self.rows or is_plugin_name(word) else self._entry(word).reference

    def word_of(self, found: object) -> str | None:
        """The word of a class or function, by which `load` finds it; None if there is none.

        "word@package" for an installed plug-in, "module:Class" for another class outside this package.
        """
        path = class_path_of(found)  # type: ignore[arg-type]
        own = next((word for word, listed in self.rows.items() if listed == path), None)
        if own is not None or path.partition(":")[0].partition(".")[0] == OWN:
            return own
        for entries in self.installed().values():
            for entry in entries:
                if _imported(entry.path) is found:
                    return entry.reference
        return path if is_class_path(path) and _imported(path) is found and self._fits(found) else None

    def _entry(self, word: str) -> Declared:
        name, _, package = word.partition("@")
        found = [one for one in self.installed().get(name, []) if package in ("", one.package)]
        if len(found) > 1:
            raise PluginError(self._clash(word))
        if found:
            return found[0]
        if not package:
            raise KeyError(word)
        raise PluginError(
            f"{self.setting}={name}: expected the package {package}, which declares the entry point {name} in "
            f"{self.group}, got none; pip install {package}"
        )

    def _clash(self, word: str, *others: str) -> str:
        names = [*others, *(f"{one.package} ({one.path})" for one in self.installed()[word])]
        hint = " or ".join(f"{self.setting}={one.reference}" for one in self.installed()[word])
        return (
            f"{self.setting}={word}: expected a word of one package, got one of {' and '.join(names)}; give {hint}, or "
            "uninstall one of them"
        )


def package_versions(settings: Any) -> dict[str, str]:
    """The version of each package of which settings name a plug-in as "word@package": {"package my-heads": "1.0"}.

    They are inputs of a key: another version may give another result. settings: of mappings, lists and plain values.
    Without such names there is no look at the installed packages.
    """
    names = {text for text in _texts(settings) if _OF_PACKAGE.fullmatch(text)}
    if not names:
        return {}
    entries = [one for words in _declared(tuple(sys.path)).values() for found in words.values() for one in found]
    return {f"package {one.package}": one.version for one in entries if one.reference in names}


def _texts(settings: Any) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, Mapping):
        for one in settings.values():
            yield from _texts(one)
    elif isinstance(settings, list | tuple):
        for one in settings:
            yield from _texts(one)


def is_class_path(word: str) -> bool:
    """Whether a word has the form "package.module:Class"."""
    return _CLASS_PATH.fullmatch(word) is not None


def is_plugin_name(word: str) -> bool:
    """Whether a word has the form "package.module:Class" or "word@package"."""
    return is_class_path(word) or _OF_PACKAGE.fullmatch(word) is not None


def allow(path: str) -> None:
    """Allow the import of "module:Class" in this process and those that it starts: the user has named it."""
    if not is_allowed(path):
        os.environ[ALLOWED] = ",".join([*filter(None, [os.environ.get(ALLOWED)]), path])


def is_allowed(path: str) -> bool:
    """Whether DETPIPE_PLUGINS has a "module:Class", its module or a package above it."""
    names = [one.strip() for one in os.environ.get(ALLOWED, "").split(",")]
    return any(name and f"{path}:".replace(":", ".").startswith(f"{name}.".replace(":", ".")) for name in names)


def check_allowed(setting: str, path: str) -> None:
    """Raise PluginError unless the class is imported already, or the user has named it or its package."""
    module = path.partition(":")[0]
    if _imported(path) is None and not is_allowed(path):
        raise PluginError(
            f"{setting}={path}: expected a class that you allow, got one that only a file names. Its code is not run. "
            f"If you trust it, put {ALLOWED}={module.partition('.')[0]} in front of the command, or in Python import "
            f"{module} first"
        )


def check_objects(settings: Any) -> None:
    """Check each "object" of nested settings of proposals, which names a class of the user (`proposals=python`).

    Raises as `check_allowed`. The settings of a command line pass: the user has typed the name.
    """
    if isinstance(settings, Mapping):
        named = settings.get("object")
        if isinstance(named, str) and named:
            check_allowed("proposals.object", named)
        for one in settings.values():
            check_objects(one)


def _typed(setting: str, path: str) -> Any:
    found = _imported(path)
    if found is not None:
        return found
    check_allowed(setting, path)
    folder = os.getcwd()  # noqa: PTH109 (sys.path holds texts)
    if folder not in sys.path:  # `python -m` has it already
        sys.path.append(folder)
    return _loaded(f"{setting}={path}", path)


def _imported(path: str) -> Any:
    """The object "module:name" if its module is imported already; else None. No code runs."""
    module, _, name = path.partition(":")
    return getattr(sys.modules.get(module), "__dict__", {}).get(name)


def _loaded(what: str, path: str) -> Any:
    try:
        return load_object(path)
    except AttributeError as error:
        raise PluginError(f"{what}: expected {path.partition(':')[2]} in its module, got none ({error})") from error
    except Exception as error:  # whatever the code of another package raises
        text = next(iter(str(error).splitlines()), "")[:300]
        raise PluginError(f"{what}: it can't be imported: {type(error).__name__}: {text}") from error


@functools.lru_cache(maxsize=1)
def _declared(path: tuple[str, ...]) -> dict[str, dict[str, list[Declared]]]:
    """The entry points of groups that begin with detpipe., by group and word. path: sys.path, which may change."""
    from importlib import metadata  # imported on use: it takes as long as all of `detpipe --help`

    del path
    found: dict[str, dict[str, list[Declared]]] = {}
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if f"[{OWN}." not in text:  # before the name of the package is read, which takes longer
                continue
            package = distribution.metadata["Name"] or "of unknown name"
            entries = [one for one in distribution.entry_points if one.group.startswith(f"{OWN}.")]
        except Exception:
            continue
        if package in seen:  # an earlier folder of sys.path has it
            continue
        seen.add(package)
        for entry in entries:
            words = found.setdefault(entry.group, {}).setdefault(entry.name, [])
            named = entry.value.partition("[")[0].strip()
            words.append(Declared(entry.name, named, package, distribution.version or "unknown"))
    return {group: dict(sorted(words.items())) for group, words in sorted(found.items())}
