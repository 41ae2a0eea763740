"""Writes docs/settings.md: every command and every setting, its type, default and meaning, from the code.

python tools/write_settings_reference.py

tests/test_docs.py fails where the page is not what this writes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import OmegaConf

from detpipe.class_path import load_class
from detpipe.commands.groups import GROUPS
from detpipe.commands.table import COMMANDS, CommandRow
from detpipe.config import EXPERIMENT
from detpipe.help import NO_VALUE, Setting, about_option, comments_of, presets_of, walk
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

A list is written `[a,b]`, no value is `null`, yes and no are `true` and `false`. `""` is an empty text.
"""

PRESETS_INTRO = """\
A preset is an option of a group with some values changed, a file in `conf/`. An experiment sets all of `detpipe run`
(`experiment=lenet` of `detpipe train-cls`).
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of docs/settings.md."""
    parts = [INTRO, "## Settings of every command\n", table(one for one in settings_of(Command) if not one.options)]
    parts += ["## Commands\n", *(part for row in COMMANDS.values() for part in command_section(row))]
    parts += ["## Groups\n", "A group offers options; one of them is chosen with `group=option`.\n"]
    for group, options in GROUPS.items():
        parts.append(f"### {group}\n")
        for option, path in options.items():
            parts += [f"#### {group}={option}\n", f"{about_option(group, option)}\n"]
            parts.append(table(settings_of(load_class(path), f"{group}.")))
    parts += ["## Presets\n", PRESETS_INTRO, presets()]
    return "\n".join(part for part in parts if part)


def command_section(row: CommandRow) -> list[str]:
    """The part of the page about a command: what it does, its groups, and the settings that no other section has."""
    settings = row.load_settings()
    others = {one.load_settings(): one.name for one in COMMANDS.values() if one is not row}
    fields = [one.name for one in dataclasses.fields(settings)]
    groups = [one for one in fields if one in GROUPS]
    own = {one for one in fields if declaring_class(settings, one) not in {Command, *others}} - set(groups)
    inherited = [f"`detpipe {others[base]}`" for base in settings.__mro__ if base in others]
    lines = [f"### detpipe {row.name}\n", f"{row.help[0].upper()}{row.help[1:]}.\n"]
    if groups:
        lines.append(f"Groups: {', '.join(f'[{one}](#{one})' for one in groups)}.\n")
    if inherited:
        lines.append(f"It also has the settings of {', '.join(inherited)}.\n")
    return [*lines, table(one for one in settings_of(settings) if one.name.partition(".")[0] in own)]


def declaring_class(settings: type, name: str) -> type:
    """The class in which a field of a dataclass is declared."""
    return next(one for one in settings.__mro__ if name in vars(one).get("__annotations__", {}))


def settings_of(settings: type, prefix: str = "") -> Iterable[Setting]:
    """Every setting of a dataclass; the settings of a dataclass within it follow in its place."""
    return walk(OmegaConf.structured(settings), prefix)


def presets() -> str:
    """The presets as a table: the comments of their files."""
    lines = ["| preset | what it is |", "|---|---|"]
    for group in (*GROUPS, EXPERIMENT):
        for name, file in presets_of(group).items():
            lines.append(f"| `{group}={name}` | {escaped(' '.join(told(comments_of(file))))} |")
    return "\n".join([*lines, ""])


def told(comments: list[str]) -> list[str]:
    """What the comments of a preset say of it; what is expected of an experiment that says no more."""
    text = [one for one in comments if not re.match(r"command:|duration:|expected:|sampling\.", one)]
    return text or [one.removeprefix("expected: ") for one in comments if one.startswith("expected: ")]


def table(settings: Iterable[Setting]) -> str:
    """The settings as Markdown; none give no table."""
    lines = []
    for one in settings:
        default = "you give it" if one.default == NO_VALUE else f"`{one.default}`"
        lines.append(f"| `{one.name}` | {escaped(one.kind)} | {default} | {escaped(one.text)} |")
    return "\n".join(["| setting | type | default | meaning |", "|---|---|---|---|", *lines, ""]) if lines else ""


def escaped(text: str) -> str:
    """Text that stays in its cell and has no HTML in it."""
    return text.replace("|", " or ").replace("<", "&lt;").replace("*", "\\*").strip()


if __name__ == "__main__":
    main()
