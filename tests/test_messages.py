"""Every message that advises a setting advises one that exists: the messages are read from the source, and typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
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
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_logged = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGED
        if isinstance(node, ast.Raise) or is_logged:
            yield from ((part.lineno, text) for part in ast.walk(node) if (text := text_of(part)))  # type: ignore[attr-defined]
        elif re.search(r"\b(expected|give|set) ", text_of(node)) and id(node) not in docstrings:
            yield node.lineno, text_of(node)  # type: ignore[attr-defined]


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
        (name, value): f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in messages_in(ast.parse(path.read_text(encoding="utf-8")))
        for name, value in advice_in(text)
        if name not in NO_SETTINGS
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


def is_typed(row: CommandRow, setting: Setting, option: str, value: str) -> bool:
    """Whether a command takes the setting."""
    words = [*([option] if option else []), *MANDATORY.get(option, [])]
    try:
        compose(row.application, [*words, as_typed(row, f"{setting.name}={value}", sweep=False)])
    except HydraException:
        return False
    return True


def test_the_messages_are_found() -> None:
    names = {name for name, _ in advised()}
    assert {"overwrite", "dataset.classes", "detect.max_detections", "solver.base_lr", "run_dir"} <= names
    assert len(names) > 40


@pytest.mark.parametrize(("name", "value"), list(advised()))
def test_what_a_message_advises_can_be_typed(name: str, value: str) -> None:
    place = advised()[name, value]
    if name in GROUPS or name == EXPERIMENT:
        options = {*GROUPS.get(name, ()), *presets_of(name)}
        assert not is_literal(value) or set(value.split("|")) <= options, f"{place}: {name}={value}"
        return
    assert any(f"{one}.".startswith(f"{name}.") for one in settings()), f"{place}: {name} is no full name of a setting"
    if not is_literal(value):
        return
    register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        assert any(is_typed(row, setting, option, value) for row, setting, option in settings()[name]), (
            f"{place}: no command takes {name}={value}"
        )


def test_advice_without_a_value_names_settings_in_full() -> None:
    """As "raise max_dets": a part of a name, or a name from Python, is nothing that a person can type."""
    ends = {name.rpartition(".")[2] for name in settings() if "." in name} - set(settings())
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in messages_in(ast.parse(path.read_text(encoding="utf-8"))):
            for found in ADVISED.finditer(text):
                assert found[1] not in ends, f"{path.relative_to(PACKAGE)}:{line}: {found[0]}"
