"""The scripts of tools/ and benchmarks/: each imports, and an import alone does nothing."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
OF_DOCS = {"mkdocs_hooks"}
"""Scripts that need the packages of `pip install 'detpipe[docs]'`."""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_imports_and_does_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if path.stem in OF_DOCS:
        pytest.importorskip("mkdocs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(path.parent)  # scripts of one folder import each other
    name = f"{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def statements(source: str) -> list[str]:
    """The statements that do something when a module is imported, beyond imports, definitions and constants."""
    harmless = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return [
        ast.unparse(node)
        for node in ast.parse(source).body
        if not isinstance(node, harmless)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'")
    ]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_only_defines_things(path: Path) -> None:
    assert statements(path.read_text(encoding="utf-8")) == []


def test_statements_are_found() -> None:
    source = '"A."\nimport os\nA = 1\nos.chdir("/")\nif __name__ == "__main__":\n    main()\nfor x in (): pass'
    assert statements(source) == ["os.chdir('/')", "for x in ():\n    pass"]
