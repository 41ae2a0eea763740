"""docs/files.md lists every file of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "list_files.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_module() -> None:
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    package = ROOT / "detpipe"
    names = {path.name for path in package.rglob("*.py") if path.name != "__init__.py" and "_pb2" not in path.name}
    assert {name for name in names if f"| `{name}` |" not in text} == set()
