"""Writes docs/tutorial.ipynb from docs/tutorial.md: the same text, its steps as cells that run.

python tools/write_notebook.py

A block after `<!-- test: notebook -->` becomes a cell. tests/test_tutorial.py runs the cells, and fails where the
notebook is not what this writes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, NOTEBOOK = DOCS / "tutorial.md", DOCS / "tutorial.ipynb"
STEP = re.compile(r"^<!-- test: notebook -->\n```(?P<language>sh|python)\n(?P<code>.*?)^```\n", re.M | re.S)


def main() -> None:
    """Write the notebook."""
    NOTEBOOK.write_text(notebook(PAGE.read_text("utf-8")), encoding="utf-8")


def notebook(page: str) -> str:
    """The notebook of a page, as JSON: code cells without output."""
    cells: list[dict[str, Any]] = []
    end = 0
    for step in STEP.finditer(page):
        cells.append(cell(len(cells), "markdown", page[end : step.start()]))
        code = step["code"] if step["language"] == "python" else shell(step["code"])
        cells.append(cell(len(cells), "code", code))
        end = step.end()
    cells.append(cell(len(cells), "markdown", page[end:]))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def shell(code: str) -> str:
    """Lines of a shell as a notebook runs them."""
    return "".join(f"!{line}\n" for line in code.splitlines())


def cell(number: int, kind: str, text: str) -> dict[str, Any]:
    """A cell with this text."""
    source = text.strip().splitlines(keepends=True)
    more: dict[str, Any] = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source, **more}


if __name__ == "__main__":
    main()
