"""The texts of `detpipe COMMAND --help` and `detpipe help SETTING`, from dataclasses and the texts in them."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
import functools
import importlib.util
import inspect
import json
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from detpipe.class_path import load_class
from detpipe.commands.table import COMMANDS, CommandRow
from detpipe.config import EXPERIMENT, GROUPS, register

MOST_USED = (
    *(
        "run_dir",
        "dataset",
        "dataset.root",
        "experiment",
        "db",
        "path",
        "source",
        "out",
        "proposals",
        "head",
        "backbone",
    ),
    *("solver.max_iter", "seed", "overwrite", "workers", "device"),
)
"""Shown first, as far as a command has them: at most `MOST` of them. One list for all commands."""
MOST = 10

ABOUT_EXPERIMENT = "A preset of a whole run: it chooses options of groups and sets several settings at once."
NO_VALUE = "???"
"""OmegaConf's sign for a value that is still to be given."""

LONGEST, SHORTEST = 110, 50
"""Columns of a line, whatever the terminal has."""


@dataclass(frozen=True)
class Setting:
    """One setting of a command.

    name: as it is typed, "detect.nms_iou". kind: its type in words. default: as it is typed. text: all that stands
    under its field. values: of an enum, with the text under each. options: of a group.
    """

    name: str
    kind: str
    default: str
    text: str
    values: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The first sentence of the text."""
        found = re.match(r".+?(?<! al)[.!?](?=\s+[A-Z(\d]|$)", self.text)
        return found[0] if found else self.text


# --- A command --------------------------------------------------------------------------------------------------------


def command_help(row: CommandRow, words: Sequence[str]) -> str:
    """The page of a command, its settings as the words of the line set them. Raises as Hydra for words it refuses."""
    register()
    overrides = [word for word in words if not word.startswith("-")]
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        config = compose(row.application, overrides)
    settings = list(settings_of(config, row))
    by_name = {setting.name: setting for setting in settings}
    first = [by_name[name] for name in MOST_USED if name in by_name][:MOST]
    rest = [setting for setting in settings if setting not in first]
    groups = [setting for setting in settings if setting.options]
    lines = [
        *wrapped(f"detpipe {row.name}: {row.help}", ""),
        "",
        *wrapped(f"usage: detpipe {row.name} [group=option] [key=value] ... [-m for sweeps] [--cfg job]", ""),
        "",
        "Groups, and their options:",
        *(line for one in groups for line in wrapped(f"{one.name}={'|'.join(one.options)}", "  ")),
        "",
        "Settings used most:",
        *(line for setting in first for line in short(setting)),
    ]
    for part in dict.fromkeys(["", *(part_of(setting) for setting in rest)]):
        inside = [one for one in rest if part_of(one) == part]
        lines += ["", f"Settings of {part}:" if part else "Other settings:"]
        lines += [line for setting in inside for line in short(setting)]
    lines += ["", *wrapped("`detpipe help SETTING` tells more of one setting, and which presets set it.", "")]
    return "\n".join(lines) + "\n"


def part_of(setting: Setting) -> str:
    """The first part of a name of several parts; "" for a name of one."""
    first, dot, _ = setting.name.partition(".")
    return first if dot else ""


def short(setting: Setting) -> list[str]:
    """A setting in a few lines: name, default, type, and a sentence."""
    return [*wrapped(f"{setting.name}={setting.default}  ({setting.kind})", "  "), *wrapped(setting.sentence, "      ")]


def wrapped(text: str, indent: str) -> list[str]:
    """The text in lines of the terminal's width, those after the first indented by two more. No text: no line."""
    width = min(max(shutil.get_terminal_size().columns - 1, SHORTEST), LONGEST)
    # A long list of options breaks at its bars.
    lines = textwrap.wrap(
        text.replace("|", "|\u200b"),
        width,
        initial_indent=indent,
        subsequent_indent=indent if indent == "      " else indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\u200b", "") for line in lines]


def settings_of(config: DictConfig, row: CommandRow) -> Iterator[Setting]:
    """The settings of a composed command. Of a group that is null those of its first option follow."""
    experiments = experiments_of(row)
    for setting in walk(config, ""):
        yield setting
        if setting.options and setting.default == "null":
            first = next(iter(GROUPS[setting.name]))
            for inner in walk(OmegaConf.structured(load_class(GROUPS[setting.name][first])), f"{setting.name}."):
                yield dataclasses.replace(inner, kind=f"{inner.kind}; with {setting.name}={first}")
    if experiments:
        yield Setting(EXPERIMENT, "preset", "null", ABOUT_EXPERIMENT, options=tuple(experiments))


def walk(config: DictConfig, prefix: str) -> Iterator[Setting]:
    """The settings of a dataclass as OmegaConf holds it, those of its parts after it."""
    kind = OmegaConf.get_type(config)
    assert kind is not None
    hints, texts = typing.get_type_hints(kind), field_texts(kind)
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        value = None if OmegaConf.is_missing(config, field.name) else config[field.name]
        inner = value if isinstance(value, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(value)) else None
        text = texts.get(field.name, "")
        if name in GROUPS:
            chosen = "null" if inner is None else option_of(name, OmegaConf.get_type(inner))
            yield Setting(name, "option", chosen, text, options=tuple(options_of(name)))
        elif inner is None:
            missing, words = OmegaConf.is_missing(config, field.name), in_words(hints[field.name])
            default, words = (NO_VALUE, f"{words}, required") if missing else (written(value), words)
            yield Setting(name, words, default, text, enum_values(hints[field.name]))
        if inner is not None:
            yield from walk(inner, f"{name}.")


def option_of(group: str, kind: type | None) -> str:
    """The name of the option that has this class; the class's name for one that is in no table."""
    assert kind is not None
    path = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, listed in GROUPS[group].items() if listed == path), kind.__name__)


def written(value: Any) -> str:
    """A value as it is typed on the command line."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, enum_to_str=True)
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value).replace('"', "").replace(", ", ",")


def in_words(kind: Any) -> str:
    """A type in words: int, text, a|b of an enum, "list of int", "float or null"."""
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if one is type(None) else in_words(one) for one in arguments)
    if origin is list:
        return f"list of {in_words(arguments[0])}"
    if origin is dict:
        return f"mapping of {in_words(arguments[0])} to {in_words(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(member.name for member in kind)
    return "text" if kind is str else getattr(kind, "__name__", str(kind))


def enum_values(kind: Any) -> tuple[tuple[str, str], ...]:
    """The members of an enum, also of one in a list or with null, and the sentence under each; of others none."""
    for one in (kind, *typing.get_args(kind)):
        if isinstance(one, type) and issubclass(one, enum.Enum):
            texts = own_texts(one)
            return tuple((member.name, texts.get(member.name, "")) for member in one)
    return ()


def field_texts(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass, inherited ones too."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__ != "builtins" and dataclasses.is_dataclass(base):
            texts |= own_texts(base)
    return texts


@functools.cache
def own_texts(kind: type) -> dict[str, str]:
    """The string literals under the names that a class's own body sets; none where its source can't be had."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    except (OSError, TypeError):
        return {}
    return texts_in(tree, kind.__name__)


def texts_in(tree: ast.Module, name: str) -> dict[str, str]:
    """As `own_texts`, of a class in a parsed file; a field without a text has an empty one."""
    body = next((node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name), [])
    texts = {}
    for statement, after in zip(body, [*body[1:], None], strict=False):
        if isinstance(statement, ast.AnnAssign | ast.Assign):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))) if isinstance(target, ast.Name):
                    texts[target.id] = " ".join(text.split())
    return texts


# --- Options and presets ----------------------------------------------------------------------------------------------


def conf() -> Traversable:
    """The folder of presets."""
    return resources.files("detpipe.conf")


def presets_of(group: str) -> dict[str, Traversable]:
    """The files of presets of a group, or of experiments, by name."""
    folder = conf() / group
    files = folder.iterdir() if folder.is_dir() else ()
    return {one.name.removesuffix(".yaml"): one for one in sorted(files, key=lambda file: file.name)}


def options_of(group: str) -> list[str]:
    """The options of a group and its presets, sorted."""
    return sorted({*GROUPS[group], *presets_of(group)})


def comments_of(file: Traversable) -> list[str]:
    """The lines of comment at the head of a preset."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]


def experiments_of(row: CommandRow) -> list[str]:
    """The experiments that say in their first comment that they are of this command."""
    return [
        name
        for name, file in presets_of(EXPERIMENT).items()
        if any(f"detpipe {row.name} " in line for line in comments_of(file)[:1])
    ]


def set_by(name: str) -> list[str]:
    """What sets a setting: `experiment=fast_rcnn (0.5)`, of presets and experiments."""
    found = []
    for group in (EXPERIMENT, *GROUPS):
        for preset, file in presets_of(group).items():
            values = flat(OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8"))))
            inner = name if group == EXPERIMENT else name.removeprefix(f"{group}.")
            if inner in values and (group == EXPERIMENT or inner != name):
                found.append(f"{group}={preset} ({written(values[inner])})")
    return found


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a preset by dotted names, mappings below the first level too: some settings are mappings.

    The choices of its `defaults` list are settings: `override /head: fast_rcnn` is head: fast_rcnn.
    """
    found: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if prefix or not isinstance(value, Mapping | list):
            found[f"{prefix}{key}"] = value
        found |= flat(value, f"{prefix}{key}.")
    if isinstance(values, Mapping) and not prefix:
        choices = [choice for choice in values.get("defaults", ()) if isinstance(choice, Mapping)]
        found |= {str(key).removeprefix("override /"): option for one in choices for key, option in one.items()}
    return found


# --- One setting ------------------------------------------------------------------------------------------------------


def setting_help(word: str) -> str:
    """What `detpipe help SETTING` shows. word: a whole name or its last parts. Raises ValueError for an unknown one."""
    if word == EXPERIMENT:
        return experiment_help()
    found: dict[Setting, dict[str, list[str]]] = {}
    known: set[str] = set()
    for row in COMMANDS.values():
        for setting, option in all_settings(row, word, known):
            if setting.name == word or setting.name.endswith(f".{word}"):
                found.setdefault(setting, {}).setdefault(row.name, []).append(option)
    if not found:
        near = difflib.get_close_matches(word, sorted(known | {name.rpartition(".")[2] for name in known}), n=4)
        hint = f"did you mean {', '.join(near)}?" if near else "`detpipe COMMAND --help` lists all settings."
        raise ValueError(f"{word}: expected a command or the name of a setting, got neither; {hint}")
    return "\n".join("\n".join(described(setting, commands)) + "\n" for setting, commands in found.items())


def described(setting: Setting, commands: Mapping[str, Sequence[str]]) -> list[str]:
    """All that is known of a setting. commands: those that have it, each with the options that bring it, or ""."""
    options = sorted({option for brought in commands.values() for option in brought if option})
    lines = wrapped(f"{setting.name}={setting.default}  ({setting.kind})", "")
    lines += wrapped(setting.text, "  ")
    for value, text in setting.values:
        lines += wrapped(f"{value}: {text}" if text else value, "      ")
    for option in setting.options:
        lines += wrapped(f"{option}: {about_option(setting.name, option)}", "      ")
    if options:
        lines += wrapped(f"with: {', '.join(options)}", "  ")
    lines += wrapped(f"commands: {', '.join(commands)}", "  ")
    if presets := set_by(setting.name):
        lines += wrapped(f"set by: {', '.join(presets)}", "  ")
    return lines


def about_option(name: str, option: str) -> str:
    """A sentence on an option of a group: of its class's docstring, or the first comment of its preset."""
    if option in presets_of(name):
        return " ".join(comments_of(presets_of(name)[option])[:1])
    if option not in GROUPS.get(name, ()):
        return ""
    path = GROUPS[name][option]
    body = next(node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef) and is_named(node, path))
    text = " ".join((ast.get_docstring(body) or "").split())
    return Setting(option, "", "", text).sentence


def experiment_help() -> str:
    """What `detpipe help experiment` shows."""
    lines = [*wrapped(f"{EXPERIMENT}=null  (preset)", ""), *wrapped(ABOUT_EXPERIMENT, "  ")]
    for name, file in presets_of(EXPERIMENT).items():
        lines += ["", f"  {EXPERIMENT}={name}"]
        lines += [line for comment in comments_of(file) for line in wrapped(comment, "      ")]
    return "\n".join(lines) + "\n"


def all_settings(row: CommandRow, word: str, known: set[str]) -> Iterator[tuple[Setting, str]]:
    """The settings of a command with each option of its groups, and that option; "" for what it has with any.

    known takes the names of all settings. An option whose file imports torch, which takes seconds, is imported only
    where its group has a setting of this word.
    """
    settings = row.load_settings()
    experiments = experiments_of(row)
    groups = [field.name for field in dataclasses.fields(settings) if field.name in GROUPS]
    for setting in walk(OmegaConf.structured(settings), ""):
        known.add(setting.name)
        if setting.name.partition(".")[0] not in groups or setting.name in groups:
            yield setting, ""
    for name in groups:
        for option, path in GROUPS[name].items():
            known |= {f"{name}.{one}" for one in texts_in(parsed(path), path.partition(":")[2])}
            asked = any(one == word or one.endswith(f".{word}") for one in known if one.startswith(f"{name}."))
            if imports_torch(path) and not asked:
                continue
            for setting in walk(OmegaConf.structured(load_class(path)), f"{name}."):
                known.add(setting.name)
                yield setting, f"{name}={option}"
    if experiments:
        known.add(EXPERIMENT)


@functools.cache
def parsed(path: str) -> ast.Module:
    """The file of a "module:Class", read without importing it."""
    return ast.parse(source_of(path))


@functools.cache
def source_of(path: str) -> str:
    """The source of a "module:Class". Raises ModuleNotFoundError where there is none."""
    module = path.partition(":")[0]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{path}: no such module")
    return Path(spec.origin).read_text(encoding="utf-8")


def is_named(node: ast.ClassDef, path: str) -> bool:
    """Whether a class of a file is the one of "module:Class"."""
    return node.name == path.partition(":")[2]


def imports_torch(path: str) -> bool:
    """Whether the file of a "module:Class" imports torch itself, and is not imported yet."""
    return path.partition(":")[0] not in sys.modules and bool(re.search(r"^(import|from) torch", source_of(path), re.M))
