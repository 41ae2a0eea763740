"""What a shell offers while a command is typed. Settings are read from the source, because each import takes a second.

The same names, options and values as Hydra's completion, and files for settings that are text.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from detpipe.commands.groups import GROUPS
from detpipe.commands.table import CommandRow
from detpipe.plugins import PluginError

PACKAGE = Path(__file__).parent
OPTIONS = ("--help", "--quiet", "--verbose", "--cfg", "--multirun")
EXPERIMENT = "experiment"


@dataclass(frozen=True)
class Field:
    """A field of a dataclass in the source.

    module: of the class. annotation: its type. default: the expression after "="; None without one.
    """

    module: str
    annotation: ast.expr
    default: ast.expr | None

    @property
    def names(self) -> set[str]:
        """The names in its type, as {"int", "None"}."""
        nodes = list(ast.walk(self.annotation))
        return {node.id for node in nodes if isinstance(node, ast.Name)}


def completions(row: CommandRow, words: Sequence[str], typed: str) -> list[str]:
    """What a shell may offer for the word `typed`, behind the command and the whole words `words`, in order."""
    if typed.startswith("-"):
        return [option for option in OPTIONS if option.startswith(typed)]
    name, equals, value = typed.partition("=")
    found = values_of(row, words, name, value) if equals else names_of(row, words, typed)
    return sorted({one for one in found if one.startswith(typed)})


def names_of(row: CommandRow, words: Sequence[str], typed: str) -> Iterator[str]:
    """The settings on the level of the typed word: `solver.` and `seed=`."""
    above, dot, _ = typed.rpartition(".")
    for name, field in fields_at(row, words, above).items():
        full = f"{above}{dot}{name}"
        is_group = not dot and group_of(name, field) is not None
        has_inside = is_group or class_of(field) is not None
        if is_group or not has_inside:
            yield f"{full}="
        if has_inside:
            yield f"{full}."
    if not dot:
        yield f"{EXPERIMENT}="


def values_of(row: CommandRow, words: Sequence[str], name: str, value: str) -> Iterator[str]:
    """The values that a setting may have: options of a group, true and false, members of an enum, and files."""
    above, _, last = name.rpartition(".")
    field = fields_at(row, words, above).get(last)
    group = EXPERIMENT if name == EXPERIMENT else None if field is None or above else group_of(name, field)
    if group is not None:
        yield from (f"{name}={option}" for option in {*GROUPS.get(group, ()), *presets(group)})
    elif field is not None and "bool" in field.names:
        yield from (f"{name}=true", f"{name}=false")
    elif field is not None and "str" in field.names:
        yield from (f"{name}={path}" for path in files_like(value))
    elif field is not None:
        yield from (f"{name}={member}" for one in field.names for member in members(field.module, one))


def files_like(start: str) -> Iterator[str]:
    """The paths that begin with a text; folders end with a slash."""
    shown = start[: start.rfind("/") + 1]
    try:
        for path in (Path(shown).expanduser() if shown else Path()).iterdir():
            if not path.name.startswith(".") or start[len(shown) :].startswith("."):
                yield f"{shown}{path.name}{'/' if path.is_dir() else ''}"
    except OSError:
        return


def presets(group: str) -> Iterator[str]:
    """The names of the presets of a group."""
    folder = resources.files("detpipe.conf") / group
    files = folder.iterdir() if folder.is_dir() else ()
    yield from (file.name.removesuffix(".yaml") for file in files)


def group_of(name: str, field: Field) -> str | None:
    """The group whose options a field takes, by its metadata or its name; None for other fields."""
    for node in ast.walk(field.default) if field.default is not None else ():
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "group" and isinstance(value, ast.Constant):
                    return str(value.value)
    return name if name in GROUPS else None


def fields_at(row: CommandRow, words: Sequence[str], path: str) -> dict[str, Field]:
    """The fields below a dotted name, "" for the command itself; none for a name without fields.

    Below a group these are the fields of the option that `words` choose, or else of the default, or else of all.
    """
    module, _, kind = row.settings.partition(":")
    fields = fields_of(module, kind)
    first, *rest = path.split(".") if path else [""]
    if not first:
        return fields
    if first not in fields:
        return {}
    group = group_of(first, fields[first])
    classes = [class_of(fields[first])] if group is None else chosen_classes(words, first, group, fields[first])
    for part in rest:
        inside = [fields_of(*one).get(part) for one in classes if one is not None]
        classes = [class_of(one) for one in inside if one is not None]
    merged: dict[str, Field] = {}
    for one in classes:
        merged |= fields_of(*one) if one is not None else {}
    return merged


def chosen_classes(words: Sequence[str], name: str, group: str, field: Field) -> list[tuple[str, str] | None]:
    """Module and name of the classes whose fields a group has."""
    options = GROUPS.get(group, {})
    for word in words:
        if word.startswith(f"{name}=") and word.partition("=")[2] in options:
            with contextlib.suppress(PluginError):
                return [split(options[word.partition("=")[2]])]
    names = {node.id for node in ast.walk(field.default) if isinstance(node, ast.Name)} if field.default else set()
    classes = [split(path) for path in options.values()]
    defaults = [found for one in sorted(names) if (found := origin(field.module, one)) in classes]
    return list(defaults or classes)


def split(path: str) -> tuple[str, str]:
    """Module and name of "module:Class"."""
    module, _, name = path.partition(":")
    return module, name


def class_of(field: Field) -> tuple[str, str] | None:
    """Module and name of the dataclass that is the type of a field; None for another type."""
    for name in field.names:
        found = origin(field.module, name)
        if found is not None and fields_of(*found):
            return found
    return None


@functools.cache
def parsed(module: str) -> ast.Module:
    """The file of a module of this package or of a plug-in, parsed; an empty one for a module without a file."""
    name = module.replace(".", "/")
    own = module.partition(".")[0] == PACKAGE.name
    for folder in [PACKAGE.parent] if own else map(Path, [*sys.path, "."]):
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            with contextlib.suppress(OSError, ValueError, SyntaxError):
                return ast.parse(path.read_text(encoding="utf-8"))
    return ast.Module([], [])


@functools.cache
def origin(module: str, name: str) -> tuple[str, str] | None:
    """Module and name of the class that a name means in a module; None for what is not of this package."""
    for node in parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, name
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("detpipe."):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return origin(node.module, alias.name)
    return None


def class_node(module: str, name: str) -> ast.ClassDef | None:
    """The class with this name in a module."""
    return next((one for one in parsed(module).body if isinstance(one, ast.ClassDef) and one.name == name), None)


@functools.cache
def fields_of(module: str, name: str) -> dict[str, Field]:
    """The fields of a dataclass by name, inherited ones first; none for another class."""
    node = class_node(module, name)
    if node is None:
        return {}
    fields: dict[str, Field] = {}
    for base in reversed(node.bases):
        found = origin(module, base.id) if isinstance(base, ast.Name) else None
        fields |= fields_of(*found) if found is not None else {}
    is_dataclass = any("dataclass" in ast.dump(one) for one in node.decorator_list)
    for statement in node.body if is_dataclass else ():
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            field = Field(module, statement.annotation, statement.value)
            if "ClassVar" not in field.names:
                fields[statement.target.id] = field
    return fields


def members(module: str, name: str) -> list[str]:
    """The members of an enum; none for another class."""
    found = origin(module, name)
    node = class_node(*found) if found is not None else None
    if node is None or not any(isinstance(base, ast.Attribute) and base.attr == "Enum" for base in node.bases):
        return []
    targets = [one.targets[0] for one in node.body if isinstance(one, ast.Assign)]
    return [target.id for target in targets if isinstance(target, ast.Name)]
