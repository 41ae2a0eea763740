"""The texts of `detpipe COMMAND --help` and `detpipe help SETTING`: settings with type, default, and docstring."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
import functools
import importlib.util
import itertools
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

from detpipe.commands.groups import GROUPS, option_class, option_of, options_for_settings
from detpipe.commands.table import COMMANDS, CommandRow
from detpipe.config import EXPERIMENT, register, schema_of
from detpipe.plugins import PluginError

# fmt: off
MOST_USED = (
    "run_dir", "dataset", "dataset.root", "experiment", "db", "path", "source", "out", "proposals", "head", "backbone",
    "solver.max_iter", "seed", "overwrite", "workers", "device",
)
# fmt: on
"""Shown first, in this order: the first `MOST` that a command has."""
MOST = 10

ABOUT_EXPERIMENT = "A preset of a whole run: it chooses options of groups and sets several settings at once."
NO_VALUE = "???"
"""OmegaConf's sign for a required value."""

LONGEST, SHORTEST = 110, 50
"""The limits of a line's width, in columns, for any terminal."""


@dataclass(frozen=True)
class Setting:
    """One setting of a command.

    name: as typed, "detect.nms_iou". kind: its type in words. default: as typed. text: the docstring under its field.
    values: the members of an enum, each with the text under it. options: of a group.
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
        return first_sentence(self.text)

    @property
    def part(self) -> str:
        """The first part of a dotted name; "" for a name without a dot."""
        first, dot, _ = self.name.partition(".")
        return first if dot else ""


def first_sentence(text: str) -> str:
    """The first sentence of a text; all of it where no sentence ends."""
    found = re.match(r".+?(?<! al)[.!?](?=\s+[A-Z(\d]|$)", text)
    return found[0] if found else text


# --- A command --------------------------------------------------------------------------------------------------------


def command_help(row: CommandRow, words: Sequence[str]) -> str:
    """The help page of a command, with the values that `words` set. Raises Hydra's errors for words that it refuses."""
    register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        config = compose(row.application, [word for word in words if not word.startswith("-")])
    settings = {setting.name: setting for setting in settings_of(config, row)}
    groups = [f"{one.name}={'|'.join(one.options)}" for one in settings.values() if one.options]
    first = [name for name in MOST_USED if name in settings][:MOST]
    sections = {"Settings used most:": [settings.pop(name) for name in first]}
    lines = [
        *wrapped(f"detpipe {row.name}: {row.help}", ""),
        "",
        *wrapped(f"usage: detpipe {row.name} [group=option] [key=value] ... [-m for sweeps] [--cfg job]", ""),
        "",
        "Groups, and their options:",
        *(line for group in groups for line in wrapped(group, "  ")),
    ]
    for part in dict.fromkeys(["", *(setting.part for setting in settings.values())]):
        sections[f"Settings of {part}:" if part else "Other settings:"] = [
            setting for setting in settings.values() if setting.part == part
        ]
    for title, inside in sections.items():
        lines += ["", title]
        for one in inside:
            lines += wrapped(f"{one.name}={one.default}  ({one.kind})", "  ") + wrapped(one.sentence, "      ")
    lines += ["", *wrapped("`detpipe help SETTING` explains one setting, and lists the presets that set it.", "")]
    return "\n".join(lines) + "\n"


def wrapped(text: str, indent: str) -> list[str]:
    """The text in lines of the terminal's width; an empty text has none. Long lists of options break at their bars.

    Lines after the first have four more spaces, unless the first has six already.
    """
    lines = textwrap.wrap(
        text.replace("|", "|\u200b"),
        min(max(shutil.get_terminal_size().columns - 1, SHORTEST), LONGEST),
        initial_indent=indent,
        subsequent_indent=indent if indent == "      " else indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\u200b", "") for line in lines]


def settings_of(config: DictConfig, row: CommandRow) -> Iterator[Setting]:
    """The settings of a composed command. A group that is null is followed by the settings of its first option."""
    for setting in walk(config, ""):
        yield setting
        if setting.options and setting.default == "null":
            first = next(iter(GROUPS[setting.name]))
            for inner in settings_of_option(option_class(setting.name, first), f"{setting.name}."):
                yield dataclasses.replace(inner, kind=f"{inner.kind}; with {setting.name}={first}")
    if experiments := experiments_of(row):
        default = "auto" if "auto" in experiments else "null"
        yield Setting(EXPERIMENT, "preset", default, ABOUT_EXPERIMENT, options=tuple(experiments))


def walk(config: DictConfig, prefix: str) -> Iterator[Setting]:
    """The settings of a dataclass in OmegaConf's form. Those of a dataclass within it follow in its place."""
    kind = OmegaConf.get_type(config)
    assert kind is not None
    hints, texts = typing.get_type_hints(kind), field_texts(kind)
    for field in dataclasses.fields(kind):
        name, hint, text = prefix + field.name, hints[field.name], texts.get(field.name, "")
        group = group_of(field)
        missing = OmegaConf.is_missing(config, field.name)
        value = None if missing else config[field.name]
        chosen = OmegaConf.get_type(value) if isinstance(value, DictConfig) else None
        is_part = chosen is not None and dataclasses.is_dataclass(chosen)
        if not prefix and group in GROUPS:
            default = (option_of(group, chosen) or chosen.__name__) if is_part and chosen else "null"
            yield Setting(name, "option", default, text, options=tuple(sorted({*GROUPS[group], *presets_of(group)})))
        elif missing:
            yield Setting(name, f"{in_words(hint)}, required", NO_VALUE, text, enum_values(hint))
        elif not is_part:
            yield Setting(name, in_words(hint), written(value), text, enum_values(hint))
        if is_part and isinstance(value, DictConfig):
            yield from walk(value, f"{name}.")


def group_of(field: dataclasses.Field[Any]) -> str:
    """The group whose options a field takes, by its metadata or its name, if GROUPS has it."""
    group: str = field.metadata.get("group", field.name)
    return group


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


# --- Docstrings of fields, read from source files ---------------------------------------------------------------------


def field_texts(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass, inherited ones too."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= own_texts(base)
    return texts


@functools.cache
def own_texts(kind: type) -> dict[str, str]:
    """As `texts_in`, of a class; nothing where its source file is missing."""
    return texts_in(parsed(kind.__module__), kind.__name__)


def texts_in(tree: ast.Module, name: str) -> dict[str, str]:
    """The string under each name that the body of a class sets. A name without one is left out."""
    node = class_in(tree, name)
    body = [] if node is None else node.body
    texts = {}
    for statement, after in itertools.pairwise(body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=field)) | ast.Assign(targets=[ast.Name(id=field)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                texts[field] = " ".join(text.split())
    return texts


def class_in(tree: ast.Module, name: str) -> ast.ClassDef | None:
    """The class with this name in a parsed file; None if the file has no such class."""
    return next((node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name), None)


@functools.cache
def parsed(module: str) -> ast.Module:
    """The file of a module, without importing it; an empty one for a file without Python code."""
    try:
        return ast.parse(source_of(module))
    except (SyntaxError, ValueError):
        return ast.Module([], [])


@functools.cache
def source_of(module: str) -> str:
    """The source of a module, without importing it; "" for a module without a file."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:
        return ""
    return (
        Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.has_location and spec.origin else ""
    )


# --- Options and presets ----------------------------------------------------------------------------------------------


def presets_of(group: str) -> dict[str, Traversable]:
    """The files of presets of a group, or of experiments, by name."""
    folder = resources.files("detpipe.conf") / group
    files = folder.iterdir() if folder.is_dir() else ()
    return {one.name.removesuffix(".yaml"): one for one in sorted(files, key=lambda file: file.name)}


def comments_of(file: Traversable) -> list[str]:
    """The lines of comment of a preset."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]


def experiments_of(row: CommandRow) -> list[str]:
    """The experiments whose first comment is a line of this command."""
    files = presets_of(EXPERIMENT).items()
    return [name for name, file in files if f"detpipe {row.name} " in "".join(comments_of(file)[:1])]


def set_by(name: str) -> list[str]:
    """The experiments and presets that set a setting, each with its value: `experiment=fast_rcnn (0.5)`."""
    found = []
    for group in (EXPERIMENT, *GROUPS):
        prefix = "" if group == EXPERIMENT else f"{group}."
        for preset, file in presets_of(group).items():
            values = flat(OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8"))))
            values = {f"{prefix}{key}": value for key, value in values.items()}
            if name in values:
                found.append(f"{group}={preset} ({written(values[name])})")
    return found


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a preset by dotted names. Below the first level a mapping is a value as well.

    The choices of its `defaults` list are settings: `override /head: fast_rcnn` is head: fast_rcnn.
    """
    found: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if prefix or not isinstance(value, Mapping):  # a mapping at the first level is a group of settings
            found[f"{prefix}{key}"] = value
        found |= flat(value, f"{prefix}{key}.")
    for choice in found.pop("defaults", ()):
        if isinstance(choice, Mapping):
            found |= {str(key).removeprefix("override /"): option for key, option in choice.items()}
    return found


def about_option(name: str, option: str) -> str:
    """A sentence on an option of a group: of its class's docstring, or the first comment of its preset."""
    for group in (name, "solver"):  # `multibox_solver` takes the options of solver
        if option in presets_of(group):
            return "".join(comments_of(presets_of(group)[option])[:1])
        if option in GROUPS.get(group, ()):
            module, _, kind = GROUPS[group][option].partition(":")
            node = class_in(parsed(module), kind)
            return "" if node is None else first_sentence(" ".join((ast.get_docstring(node) or "").split()))
    return ""


# --- One setting ------------------------------------------------------------------------------------------------------


def setting_help(word: str) -> str:
    """What `detpipe help SETTING` shows. word: a whole name or its last parts. Raises ValueError for an unknown one."""
    if word == EXPERIMENT:
        return experiment_help()
    found: dict[Setting, dict[str, list[str]]] = {}
    known: set[str] = {EXPERIMENT}
    for row in COMMANDS.values():
        for setting, option in all_settings(row, word, known):
            if is_named(setting.name, word):
                found.setdefault(setting, {}).setdefault(row.name, []).append(option)
    if not found:
        near = difflib.get_close_matches(word, sorted(known | {name.rpartition(".")[2] for name in known}), n=4)
        hint = f"did you mean {', '.join(near)}?" if near else "`detpipe COMMAND --help` lists all settings."
        raise ValueError(f"{word}: expected a command or the name of a setting, got neither; {hint}")
    return "\n".join("\n".join(described(setting, commands)) + "\n" for setting, commands in found.items())


def unknown_setting(row: CommandRow, word: str) -> str:
    """The error for a word that is not a setting of a command, with the settings that have a similar name."""
    near = names_like(row, word)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    command = f"detpipe {row.name}"
    return (
        f"{word}: expected a setting of `{command}`, got an unknown name; {hint}`{command} --help` lists all settings"
    )


# fmt: off
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "annotations": ("dataset.train_json", "dataset.root"), "arch": ("backbone.name",), "batch": ("solver.batch_size",),
    "checkpoint": ("solver.weights",), "conf": ("detect.score_floor",), "confidence": ("detect.score_floor",),
    "cuda": ("device",), "data": ("dataset.root",), "data_dir": ("dataset.root",), "file": ("path",),
    "force": ("overwrite",), "gpu": ("device",), "image": ("source",), "images": ("source",),
    "image_size": ("crops.size",), "img_size": ("crops.size",), "imgsz": ("crops.size",), "input": ("source", "path"),
    "iou": ("detect.nms_iou",), "iters": ("solver.max_iter",), "iterations": ("solver.max_iter",),
    "learning_rate": ("solver.base_lr",), "lr": ("solver.base_lr",), "max_det": ("detect.max_detections",),
    "max_dets": ("detect.max_detections",), "min_score": ("detect.score_floor",), "model": ("backbone.name",),
    "names": ("dataset.classes",), "nc": ("dataset.classes",), "nms": ("detect.nms_iou",),
    "num_classes": ("dataset.classes",), "num_workers": ("workers",), "out": ("run_dir",), "output": ("out", "run_dir"),
    "output_dir": ("out", "run_dir"), "pretrained": ("backbone.weights",), "project": ("run_dir",),
    "random_seed": ("seed",), "save_dir": ("out", "run_dir"), "score": ("detect.score_floor",),
    "score_threshold": ("detect.score_floor",), "score_thresh": ("detect.score_floor",),
    "steps": ("solver.max_iter",), "thresh": ("detect.score_floor",), "threshold": ("detect.score_floor",),
    "wd": ("solver.weight_decay",),
}
# fmt: on
"""Names that other programs have for settings: the last part of a word, and what it is here, first choice first."""


def names_like(row: CommandRow, word: str, *, cutoff: float = 0.6) -> list[str]:
    """The settings of a command that may be meant by a word, at most three: best first, none if no name is similar.

    `max_iter` means all settings whose last part it is. cutoff: the least likeness of other names, 0 to 1.
    """
    known: set[str] = set()
    for _ in all_settings(row, word, known):
        pass
    last = word.rpartition(".")[2]
    likely = (
        "solver",
        "detect",
        "dataset",
        "backbone",
        "crops",
        "proposals",
        "sampling",
        "head",
        "multibox_solver",
        "tuning",
    )
    names = sorted(
        known, key=lambda name: (likely.index(part) if (part := name.partition(".")[0]) in likely else -1, name)
    )
    others = [name for name in OTHER_NAMES.get(last, ()) if name in known][:1]
    same_end = [name for name in names if is_named(name, last) and name not in others]
    inside = difflib.get_close_matches(word, names, n=1, cutoff=max(cutoff, 0.8))
    ends = {name.rpartition(".")[2]: name for name in reversed(names)}
    near = [ends[one] for one in difflib.get_close_matches(last, ends, n=1, cutoff=max(cutoff, 0.75))]
    if "." in word:  # a whole name with a typo means that setting, not others with the same end
        inside = difflib.get_close_matches(word, names, n=1, cutoff=max(cutoff, 0.9)) or inside
        same_end = [] if inside and not others and word not in same_end else same_end
    found = [*others, *same_end][:3]
    return found or inside or near or difflib.get_close_matches(word, names, n=1, cutoff=cutoff)


def field_options(row: CommandRow) -> dict[str, list[str]]:
    """The fields of a command that choose an option of a group, each with all options and presets."""
    fields = {field.name: group_of(field) for field in dataclasses.fields(row.load_settings())}
    return {
        name: sorted({*GROUPS[group], *presets_of(group)})
        for name, group in fields.items()
        if name in GROUPS and group in GROUPS
    }


def is_named(name: str, word: str) -> bool:
    """Whether a word is the name of a setting or the last parts of it."""
    return f".{name}".endswith(f".{word}")


def all_settings(row: CommandRow, word: str, known: set[str]) -> Iterator[tuple[Setting, str]]:
    """The settings of a command with each option of its groups, and that option; "" for those with any option.

    known collects the names of all settings. Importing torch takes seconds: an option whose file does so is skipped
    unless its group has a setting of this word.
    """
    settings = row.load_settings()
    groups = {field.name: group_of(field) for field in dataclasses.fields(settings) if group_of(field) in GROUPS}
    for setting in walk(schema_of(settings), ""):
        known.add(setting.name)
        if setting.part not in groups:
            yield setting, ""
    for name, group in groups.items():
        wanted = typing.get_type_hints(settings)[name]
        for option, path in options_for_settings(group):
            if name != group and not issubclass(option_class(group, option), wanted):
                continue
            module, _, kind = path.partition(":")
            known |= {f"{name}.{one}" for one in names_in(module, kind)}
            asked = any(one.startswith(f"{name}.") and is_named(one, word) for one in known)
            is_slow = module not in sys.modules and re.search(r"^(import|from) torch", source_of(module), re.M)
            if is_slow and not asked:
                continue
            try:
                kind_of_option = option_class(group, option)
            except PluginError:  # it is named when it is chosen
                continue
            for setting in settings_of_option(kind_of_option, f"{name}."):
                known.add(setting.name)
                yield setting, f"{name}={option}"


@functools.cache
def names_in(module: str, kind: str) -> frozenset[str]:
    """The settings of a class with a text under them, without importing it. Kept, as many commands have the class."""
    return frozenset(texts_in(parsed(module), kind))


@functools.cache
def settings_of_option(kind: type, prefix: str) -> tuple[Setting, ...]:
    """The settings of the class of an option. Kept, as many commands have it."""
    return tuple(walk(schema_of(kind), prefix))


def described(setting: Setting, commands: Mapping[str, Sequence[str]]) -> list[str]:
    """The help of one setting. commands: those that have it, each with the options that bring it, or ""."""
    options = sorted({option for brought in commands.values() for option in brought if option})
    values = [*setting.values, *((option, about_option(setting.name, option)) for option in setting.options)]
    lines = wrapped(f"{setting.name}={setting.default}  ({setting.kind})", "") + wrapped(setting.text, "  ")
    for value, text in values:
        lines += wrapped(f"{value}: {text}" if text else value, "      ")
    for title, names in (("with", options), ("commands", commands), ("set by", set_by(setting.name))):
        if names:
            lines += wrapped(f"{title}: {', '.join(names)}", "  ")
    return lines


def experiment_help() -> str:
    """What `detpipe help experiment` shows."""
    lines = [*wrapped(f"{EXPERIMENT}=auto  (preset)", ""), *wrapped(ABOUT_EXPERIMENT, "  ")]
    for name, file in presets_of(EXPERIMENT).items():
        lines += ["", f"  {EXPERIMENT}={name}"]
        lines += [line for comment in comments_of(file) for line in wrapped(comment, "      ")]
    return "\n".join(lines) + "\n"
