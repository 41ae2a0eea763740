"""docs/tutorial.ipynb is docs/tutorial.md as a notebook, and its cells run from the first to the last."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from tests.test_docs import CommandLine
from tools.write_notebook import NOTEBOOK, PAGE, notebook

FEW = ["dataset.train_images=12", "dataset.test_images=4"]
"""Images of the practice folder, to be quick."""


def test_the_notebook_is_the_page() -> None:
    assert NOTEBOOK.read_text("utf-8") == notebook(PAGE.read_text("utf-8")), "run python tools/write_notebook.py"


def test_a_step_becomes_a_cell_and_the_text_around_it_stays() -> None:
    page = "# A\n\n<!-- test: notebook -->\n```sh\na b\nc\n```\n\n<!-- test: notebook -->\n```python\nd\n```\nend\n"
    cells = json.loads(notebook(page))["cells"]
    assert [one["cell_type"] for one in cells] == ["markdown", "code", "markdown", "code", "markdown"]
    assert ["".join(one["source"]) for one in cells] == ["# A", "!a b\n!c", "", "d", "end"]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = [one for one in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if one["cell_type"] == "code"]
    command_line, names = CommandLine(tmp_path / "stderr.txt"), {"__name__": "notebook"}
    try:
        for number, one in enumerate(cells):
            code = "".join(one["source"])
            if not code.startswith("!"):
                exec(compile(code, f"cell {number}", "exec"), names)
                continue
            for line in code.splitlines():
                words = shlex.split(line.removeprefix("!"))
                few = FEW if "dataset=demo" in words else []
                status = command_line.run([*words, *few], tmp_path)
                assert status == 0, f"{line}\n{command_line.errors.read_text()}"
    finally:
        command_line.close()
    rows = list(csv.DictReader((tmp_path / "detections.csv").read_text("utf-8").splitlines()))
    photos = sorted(path.name for path in (tmp_path / "new_photos").iterdir())
    drawn = sorted(path.name for path in (tmp_path / "runs/tutorial/sources/new_photos/annotated").iterdir())
    assert len(photos) == 3
    assert drawn == photos
    assert {row["photo"] for row in rows} <= set(photos)
    assert all(float(row["x1"]) < float(row["x2"]) and 0 <= float(row["score"]) <= 1 for row in rows)
