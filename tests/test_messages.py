"""Every message that advises a setting advises one that exists: the messages are read from the source, and typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.errors import HydraException

import detpipe
from detpipe.commands.groups import GROUPS
from detpipe.commands.table import COMMANDS, CommandRow
from detpipe.config import EXPERIMENT, register
from detpipe.help import Setting, all_settings, presets_of
from detpipe.overrides import as_typed
from tests.test_conf import MANDATORY

PACKAGE = Path(detpipe.__file__).parent
LOGGED = {"debug", "info", "warning", "error", "log"}
NO_SETTINGS = {
    "input_shape": "an argument of the Python API for nets of Caffe",
    "box_columns.snapped": "a function",
    "detpipe.datasets.coco_results.read_detections": "a function",
    "dropout_param.scale_train": "a field of a prototxt",
    "numpy.save": "a function",
    "package.module": "stands for a module",
    "torch.save": "a function",
    "detpipe.boxes.rank": "a function",
}
"""What looks like a setting in a message, and what it is."""
NAMED = re.compile(r"(?<![\w.{\0/-])([a-z_][a-z_0-9]*(?:\.[a-z_0-9]+)*)=(?!=)(\[[^]]*\]|[^\s;,)`'\"]*)")
DOTTED = re.compile(r"(?<![\w.{\0/-])([a-z_]+(?:\.[a-z_0-9]+)+)(?![\w(\0.])")
ADVISED = re.compile(r"\b(?:set|raise|lower|give) ([a-z]+_[a-z_]+)\b(?![.=(])")
FILES = frozenset(
    ("json", "lmdb", "csv", "txt", "html", "safetensors", "jpg", "png", "yaml", "pkl", "mat", "npy", "xml", "gz", "mdb")
)
"""Suffixes of files, which look like the last part of a setting."""


def text_of(node: ast.AST) -> str:
    r"""The text of a string, each value in it as \0; "" for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def messages_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each string that is raised or logged, or that says what was expected."""
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        is_logged = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGED
        if isinstance(node, ast.Raise) or is_logged:
            yield from ((part.lineno, text) for part in ast.walk(node) if (text := text_of(part)))  # type: ignore[attr-defined]
        elif isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings:
            text = text_of(node)
            if re.search(r"\b(expected|give|set) ", text):
                yield node.lineno, text


@cache
def messages() -> list[tuple[str, str]]:
    """Place and text of each message of the package."""
    return [
        (f"{path.relative_to(PACKAGE)}:{line}", text)
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in messages_in(ast.parse(path.read_text(encoding="utf-8")))
    ]


def advice_in(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of each setting that a message names; the value is "" where there is none."""
    for found in NAMED.finditer(text):
        yield found[1], found[2].rstrip(".:")
    for found in DOTTED.finditer(text):
        if found[1].rpartition(".")[2] not in FILES:
            yield found[1], ""


@cache
def advised() -> dict[tuple[str, str], str]:
    """Each advised setting and value, with the place of one message."""
    return {
        (name, value): place for place, text in messages() for name, value in advice_in(text) if name not in NO_SETTINGS
    }


@cache
def settings() -> dict[str, list[tuple[CommandRow, Setting, str]]]:
    """Each setting by its full name: the commands that have it, and the option that brings it."""
    found: dict[str, list[tuple[CommandRow, Setting, str]]] = {}
    for row in COMMANDS.values():
        for setting, option in all_settings(row, "maps", set()):
            found.setdefault(setting.name, []).append((row, setting, option))
    return found


def is_literal(value: str) -> bool:
    """Whether a value of a message can be typed; FILE, [...] and values that a program fills in are stand-ins."""
    return bool(value) and not re.search(r"[A-Z\0%]|\.\.\.", value) and value.startswith("[") == value.endswith("]")


Candidate = tuple[CommandRow, Setting, str]
"""A command, a setting of it, and the option that brings it."""


def are_typed(row: CommandRow, option: str, advice: Iterable[tuple[Setting, str]]) -> bool:
    """Whether a command takes all of these settings with their values."""
    words = [*([option] if option else []), *MANDATORY.get(option, [])]
    try:
        typed = [as_typed(row, f"{setting.name}={value}", sweep=False) for setting, value in advice]
        compose(row.application, [*words, *typed])
    except HydraException:
        return False
    return True


def not_typed(advice: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The settings and values that no command takes.

    They are composed together, a command and option at a time: one by one takes minutes. Those of a composition that
    failed are tried alone, with each command that has the setting.
    """
    batches: dict[tuple[str, str], list[tuple[Candidate, str]]] = {}
    for name, value in advice:
        row, setting, option = settings()[name][0]
        batches.setdefault((row.application, option), []).append(((row, setting, option), value))
    for (_, option), batch in batches.items():
        if are_typed(batch[0][0][0], option, [(setting, value) for (_, setting, _), value in batch]):
            continue
        for (_, setting, _), value in batch:
            if not any(are_typed(row, one, [(other, value)]) for row, other, one in settings()[setting.name]):
                yield setting.name, value


def test_the_messages_are_found() -> None:
    names = {name for name, _ in advised()}
    assert {"overwrite", "dataset.classes", "detect.max_detections", "solver.base_lr", "run_dir"} <= names
    assert len(names) > 40


def test_what_messages_advise_can_be_typed() -> None:
    """One test for all of them: each worker of a parallel run would make the list of parameters again."""
    wrong: list[str] = []
    literal = []
    for (name, value), place in advised().items():
        if name in GROUPS or name == EXPERIMENT:
            if is_literal(value) and not set(value.split("|")) <= {*GROUPS.get(name, ()), *presets_of(name)}:
                wrong.append(f"{place}: {name} has no option {value}")
        elif not any(f"{one}.".startswith(f"{name}.") for one in settings()):
            wrong.append(f"{place}: {name} is no full name of a setting")
        elif is_literal(value):
            literal.append((name, value))
    assert wrong == []
    register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        refused = [f"{advised()[one]}: no command takes {'='.join(one)}" for one in not_typed(literal)]
    assert refused == []
    assert len(literal) > 40


def test_a_value_that_no_command_takes_is_found() -> None:
    """Among others that are right."""
    advice = [("fail_on", "warning"), ("fail_on", "nobody"), ("seed", "1")]
    register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        assert list(not_typed(advice)) == [advice[1]]


def test_advice_without_a_value_names_settings_in_full() -> None:
    """As "raise max_dets": a part of a name, or a name from Python, is nothing that a person can type."""
    ends = {name.rpartition(".")[2] for name in settings() if "." in name} - set(settings())
    for place, text in messages():
        for found in ADVISED.finditer(text):
            assert found[1] not in ends, f"{place}: {found[0]}"
