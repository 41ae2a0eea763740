"""Writes docs/settings.md: every command and every setting, its default and its meaning, from the code.

python tools/write_settings_reference.py

tests/test_docs.py fails where the page is not what this writes.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detpipe.cli import SUMMARY, spoken
from detpipe.commands.table import COMMANDS, FAMILIES
from detpipe.config import GROUPS
from detpipe.runs.command import Command

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

INTRO = """\
# Settings

Every command and every setting. This page is made from the code by `tools/write_settings_reference.py`, so it is
complete.

Write a setting as `name=value` behind the command. Choose between the options of a group with `group=option`. The
settings of the option then have the group's name in front:

```sh
detpipe run dataset=voc dataset.root=my_voc head=fast_rcnn head.hidden=1024 run_dir=runs/mine
```

`--cfg job` shows all settings of a command with the values that it would use:

```sh
detpipe run --cfg job
```

A list is written `[a,b]`, no value is `null`, yes and no are `true` and `false`.
"""


PRESETS_INTRO = """\
A preset is an option of a group with some values changed, a file in `conf/`. An experiment says all of `detpipe run`
(`experiment=lenet` of `detpipe train-cls`).
"""
CONF = PAGE.parents[1] / "conf"


class Setting(typing.NamedTuple):
    """A row of the page. default: as JSON has it, None where the user must give the value."""

    name: str
    default: str | None
    meaning: str


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of docs/settings.md."""
    parts = [
        INTRO,
        "## Settings of every command\n",
        table([row for row in settings_of(Command) if row.name not in GROUPS]),
    ]
    parts += ["## Commands\n", *(part for name, command in COMMANDS.items() for part in command_section(name, command))]
    parts += ["## Groups\n", "A group offers options; one of them is chosen with `group=option`.\n"]
    for group, options in GROUPS.items():
        parts.append(f"### {group}\n")
        for option, config in options.items():
            parts += [
                f"#### {group}={option}\n",
                first_sentence(config) + "\n",
                table(settings_of(config, f"{group}.")),
            ]
    parts += ["## Presets\n", PRESETS_INTRO, *presets()]
    return "\n".join(part for part in parts if part)


def presets() -> list[str]:
    """The presets as a table: the comments of their files."""
    lines = ["| preset | what it is |", "|---|---|"]
    for path in sorted(CONF.glob("*/*.yaml")):
        if path.parent.name != "hydra":
            comments = [line[1:].strip() for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
            told = [one for one in comments if not re.match(r"@package|command:|duration:|expected:|sampling\.", one)]
            told = told or [one.removeprefix("expected: ") for one in comments if one.startswith("expected: ")]
            lines.append(f"| `{path.parent.name}={path.stem}` | {escaped(' '.join(told))} |")
    return ["\n".join([*lines, ""])]


def command_section(name: str, command: type) -> list[str]:
    """The part of the page about a command: what it does, its groups, and the settings that no other section has."""
    family, _, member = name.partition("-")
    summary = FAMILIES[family][member] if family in FAMILIES else SUMMARY[name]
    owners = {owner: spoken(other) for other, owner in COMMANDS.items() if owner is not command}
    fields = [one.name for one in dataclasses.fields(command)]
    own = [one for one in fields if declaring_class(command, one) not in {Command, *owners}]
    groups = [one for one in fields if one in GROUPS]
    inherited = [spoken_name for owner, spoken_name in owners.items() if owner in command.__mro__]
    lines = [f"### detpipe {spoken(name)}\n", f"{summary[0].upper()}{summary[1:]}.\n"]
    if groups:
        lines.append(f"Groups: {', '.join(f'[{one}](#{one})' for one in groups)}.\n")
    if inherited:
        lines.append(f"It has the settings of {', '.join(f'`detpipe {one}`' for one in inherited)}, too.\n")
    rows = [row for row in settings_of(command) if row.name.partition(".")[0] in set(own) - set(groups)]
    return [*lines, table(rows)]


def declaring_class(config: type, name: str) -> type:
    """The class in which a field of a dataclass is declared."""
    return next(one for one in config.__mro__ if name in vars(one).get("__annotations__", {}))


def first_sentence(config: type) -> str:
    """The first sentence of a class's docstring, on one line."""
    text = " ".join((inspect.getdoc(config) or "").split())
    return text.partition(". ")[0].rstrip(".") + "."


def settings_of(config: type, prefix: str = "") -> list[Setting]:
    """Every setting of a dataclass; those of a dataclass within it follow in its place."""
    return list(_rows(OmegaConf.structured(config), prefix))


def _rows(node: DictConfig, prefix: str) -> Iterator[Setting]:
    config = OmegaConf.get_type(node)
    meanings, hints = field_docs(config), typing.get_type_hints(config)
    values = OmegaConf.to_container(node, enum_to_str=True)
    assert isinstance(values, dict)
    for name, value in values.items():
        inner = OmegaConf.get_type(node, name)
        if isinstance(value, dict) and dataclasses.is_dataclass(inner):
            yield from _rows(node[name], f"{prefix}{name}.")
            continue
        default = None if value == "???" else value if isinstance(value, str) else json.dumps(value)
        yield Setting(f"{prefix}{name}", default, meanings.get(str(name), "") + choices(hints[str(name)]))


def field_docs(config: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, on one line. The one place that knows where meanings come from."""
    found: dict[str, str] = {}
    for one in reversed(config.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[field.target.id] = " ".join(below.value.value.split())
    return found


def choices(hint: Any) -> str:
    """What an enumeration's setting may be, as a sentence; of any other type nothing."""
    for one in (hint, *typing.get_args(hint)):
        if isinstance(one, type) and issubclass(one, enum.Enum):
            return f" One of {', '.join(f'`{member.value}`' for member in one)}."
    return ""


def table(rows: list[Setting]) -> str:
    """The rows as Markdown; no rows give no table."""
    if not rows:
        return ""
    lines = [f"| `{row.name}` | {shown(row.default)} | {escaped(row.meaning)} |" for row in rows]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines, ""])


def shown(default: str | None) -> str:
    """A default as the page has it."""
    if default is None:
        return "you give it"
    return f"`{default}`" if default else "empty"


def escaped(text: str) -> str:
    """Text that stays in its cell and has no HTML in it."""
    return text.replace("|", " or ").replace("<", "&lt;").replace("*", "\\*").strip()


if __name__ == "__main__":
    main()
