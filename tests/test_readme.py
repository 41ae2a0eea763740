"""The README's tree is true: every module stands in it, and nothing that is gone."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tree_files() -> set[str]:
    """The files of the README's tree, as paths from detpipe/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("```text\n", 1)[1].split("```", 1)[0]
    files, folder = set(), ""
    for line in tree.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        if indent == 0:
            inside = name == "detpipe/"
        elif name.endswith("/"):
            folder = name
        elif inside:
            files.add(name if indent == 2 else folder + name)
    return files


def test_every_module_stands_in_the_tree_with_a_phrase() -> None:
    package = ROOT / "detpipe"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}
    assert {name for name in tree_files() if name.endswith(".py")} == modules


def test_the_tree_gives_each_line_a_phrase() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("```text\n", 1)[1].split("```", 1)[0]
    bare = [line for line in tree.splitlines()[1:] if not re.match(r"\s*\S+\s+\S", line)]
    assert bare == []
