"""Writes docs/files.md: each file of detpipe/ with the first sentence of its docstring.

python tools/list_files.py           write the page
python tools/list_files.py --check   exit with 1 if the page is not up to date
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "detpipe"
PAGE = ROOT / "docs" / "files.md"
HEADER = """\
# All files

Every Python file of the package with the first sentence of its docstring. This page is
written by `python tools/list_files.py`. The [architecture](../ARCHITECTURE.md) tells how the folders relate.
"""


def page() -> str:
    """The page as Markdown: a table for each folder, folders and files in alphabetical order."""
    sections = [HEADER]
    for folder in folders():
        rows = [f"| `{path.name}` | {first_sentence(path)} |" for path in modules(folder)]
        if rows:
            name = folder.relative_to(ROOT)
            sections.append("\n".join([f"## {name}/\n", "| file | what it holds |", "|---|---|", *rows]) + "\n")
    return "\n".join(sections)


def folders() -> list[Path]:
    """The package and its folders."""
    return [PACKAGE, *sorted(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]


def modules(folder: Path) -> Iterator[Path]:
    """The Python files of a folder that people write and read."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py" and not path.name.endswith("_pb2.py"):
            yield path


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line. Raises ValueError where there is none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{path}: expected a docstring that tells what the file holds")
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    sentence = paragraph.split(". ")[0].removesuffix(".")
    return f"{sentence}.".replace("|", "\\|")


def main() -> int:
    """Write or check the page; returns the exit status."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE.relative_to(ROOT)}: not up to date; run python tools/list_files.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
