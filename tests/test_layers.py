"""The layers of ARCHITECTURE.md, read from the imports: a file imports only from lower numbers, or its own folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import detpipe

PACKAGE = Path(detpipe.__file__).parent
LAYERS = {
    **dict.fromkeys(
        (
            "boxes",
            "structures",
            "arguments",
            "class_path",
            "console",
            "duration",
            "jit",
            "parallel",
            "plugins",
            "progress",
            "randomness",
            "resize",
            "tiles",
        ),
        0,
    ),
    **dict.fromkeys(("storage", "solver"), 0),
    **dict.fromkeys(("datasets", "metrics", "backbone", "tracking", "engines"), 1),
    **dict.fromkeys(("inspect", "network", "taxonomy"), 2),
    "heads": 3,
    **dict.fromkeys(("proposals", "classify"), 4),
    **dict.fromkeys(("diagnosis", "labels"), 5),
    **dict.fromkeys(("report", "runs"), 6),
    **dict.fromkeys(("commands", "integrations"), 7),
    **dict.fromkeys(
        (
            "config",
            "help",
            "completion",
            "overrides",
            "auto_dataset",
            "auto_experiment",
            "remote_run",
            "preset_files",
            "cli",
            "training",
            "__main__",
        ),
        8,
    ),
}
"""The number of each folder and file at the top of the package; __init__ is the door and may open any."""
BESIDE = {
    ("boxes", "structures"),
    ("randomness", "structures"),
    ("storage", "structures"),
    ("tiles", "boxes"),
    ("tiles", "structures"),
    ("solver", "progress"),
    ("solver", "storage"),
    ("plugins", "class_path"),
    ("progress", "console"),
    ("runs", "report"),
    ("commands", "integrations"),
    ("overrides", "config"),
    ("overrides", "help"),
    ("overrides", "preset_files"),
    ("auto_dataset", "overrides"),
    ("auto_experiment", "config"),
    ("auto_experiment", "overrides"),
    ("cli", "auto_dataset"),
    ("cli", "auto_experiment"),
    ("cli", "config"),
    ("cli", "overrides"),
    ("cli", "remote_run"),
    ("cli", "completion"),
    ("cli", "help"),
    ("help", "config"),
    ("__main__", "cli"),
    ("training", "auto_dataset"),
    ("training", "auto_experiment"),
    ("training", "cli"),
    ("training", "config"),
    ("training", "overrides"),
    ("training", "remote_run"),
    ("remote_run", "overrides"),
}
"""Who may import whom of the same number: as ARCHITECTURE.md says below its table."""
HYDRA_ONLY_IN = {"auto_experiment", "config", "help", "overrides", "cli", "training"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.endswith("_pb2.py"))


def part_of(path: Path) -> str:
    """The folder or file at the top of the package that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module that is imported, at the top or inside of a function, by its full name; `package` is the file's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@cache
def tree_of(path: Path) -> ast.Module:
    """Parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> frozenset[str]:
    package = ".".join(("detpipe", *path.relative_to(PACKAGE).parts[:-1]))
    return frozenset(imports(tree_of(path), package))


def own_parts(path: Path) -> set[str]:
    """The parts of the package that a module imports from, without its own."""
    names = {name.split(".")[1] for name in imports_of(path) if name.startswith("detpipe.")}
    return {name for name in names if name in LAYERS} - {part_of(path)}


def faults(path: Path) -> list[str]:
    part = part_of(path)
    return [
        f"{path.relative_to(PACKAGE)} ({LAYERS[part]}) imports {other} ({LAYERS[other]})"
        for other in sorted(own_parts(path))
        if LAYERS[other] >= LAYERS[part] and (part, other) not in BESIDE
    ]


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {part_of(path) for path in MODULES} - {"__init__"}
    assert parts == set(LAYERS)


def test_imports_go_downwards() -> None:
    assert [fault for path in MODULES if path != PACKAGE / "__init__.py" for fault in faults(path)] == []


@pytest.mark.parametrize(
    ("part", "strangers"),
    [
        ("metrics", {"datasets", "backbone"}),
        ("classify", {"proposals"}),
        ("proposals", {"classify"}),
        ("heads", {"proposals"}),
        ("network", {"heads"}),
        ("references", set(LAYERS)),
        ("parallel", set(LAYERS)),
        ("structures", set(LAYERS)),
        ("solver", {"boxes", "structures", "datasets"}),
    ],
)
def test_these_never_meet(part: str, strangers: set[str]) -> None:
    for path in MODULES:
        if part_of(path) == part:
            assert not own_parts(path) & strangers, path


def name_of(path: Path) -> str:
    return ".".join(("detpipe", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def graph_of_imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """From each module to those of the same package that it imports when it is loaded: at the top, not in functions."""
    graph = {}
    for module, source in sources.items():
        statements = (node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom))
        found = {name for one in statements for name in imports(one, module.rpartition(".")[0])}
        graph[module] = found & sources.keys() - {module}
    return graph


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {name_of(path): path.read_text(encoding="utf-8") for path in MODULES}
    TopologicalSorter(graph_of_imports(sources)).prepare()  # raises CycleError, which names the modules


def test_a_circle_is_found() -> None:
    sources = {"p.a": "from p.b import x", "p.b": "import p.c", "p.c": "from p import a"}
    with pytest.raises(CycleError, match=r"p\.a"):
        TopologicalSorter(graph_of_imports(sources)).prepare()
    sources["p.c"] = "def late():\n    from p import a"
    TopologicalSorter(graph_of_imports(sources)).prepare()


def test_only_the_command_line_knows_hydra() -> None:
    knowing = {
        part_of(path)
        for path in MODULES
        if any(name.split(".")[0] in {"hydra", "omegaconf"} for name in imports_of(path))
    }
    assert knowing <= HYDRA_ONLY_IN


def test_the_reader_of_imports_reads_them_all() -> None:
    source = """
import os, detpipe.boxes as geometry
from . import prefetch
from ..storage import datum as d
from detpipe import structures
def late():
    from detpipe.commands.run import run
"""
    assert set(imports(ast.parse(source), "detpipe.solver")) >= {
        "os",
        "detpipe.boxes",
        "detpipe.solver.prefetch",
        "detpipe.storage.datum",
        "detpipe.structures",
        "detpipe.commands.run",
    }


def test_no_module_is_called_utils() -> None:
    names = {part for path in MODULES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not {name for name in names if re.fullmatch(r"(.*_)?(utils?|helpers?|misc|common)", name)}


BOX_WORD = re.compile(r"(^|_)(box|boxes|bbox|x1|y1|x2|y2|xmin|ymin|xmax|ymax|left|top|right|bottom|corners)(_|$)")
ONES = {"1", "1.0"}


def names_in(node: ast.AST) -> Iterator[str]:
    """Names and attributes of an expression, but for what is only counted: len(boxes) is no coordinate."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "len":
        return
    if isinstance(node, ast.Name | ast.Attribute):
        yield node.id if isinstance(node, ast.Name) else node.attr
    for child in ast.iter_child_nodes(node):
        yield from names_in(child)


def boxes_plus_one(path: Path) -> list[str]:
    """Sums with 1 that stand beside the name of a box or of one of its sides: `x2 - x1 + 1`, `boxes += 1`."""
    found = []
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.BinOp(left=a, op=ast.Add(), right=b) | ast.AugAssign(target=a, op=ast.Add(), value=b):
                for one, other in ((a, b), (b, a)):
                    if ast.unparse(one) in ONES and any(BOX_WORD.search(name) for name in names_in(other)):
                        found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    return found


def test_only_the_voc_reader_adds_one_to_a_box() -> None:
    found = [line for path in MODULES if path != PACKAGE / "datasets" / "voc_xml.py" for line in boxes_plus_one(path)]
    assert found == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("w = x2 - x1 + 1", True),
        ("w = 1 + (boxes[:, 2] - boxes[:, 0])", True),
        ("boxes[:, 2:] += 1", True),
        ("b = truth.boxes + 1.0", True),
        ("w = x2 - x1", False),
        ("label = labels + 1", False),
        ("n = len(boxes) + 1", False),
        ("last = x2 - 1", False),
    ],
)
def test_the_search_for_plus_one_finds_it(line: str, wrong: bool, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(line)
    assert bool(boxes_plus_one(tmp_path / "m.py")) == wrong
