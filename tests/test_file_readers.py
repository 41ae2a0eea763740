"""Every reader of files that other people made goes through storage/input_file.py, read from the source.

A call that reads a file stands in a function that also calls `check_input`, or in the guard itself, or is listed here
with the reason why it may read directly.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import detpipe

PACKAGE = Path(detpipe.__file__).parent

GUARD = {"storage/input_file.py": "the entry point", "storage/reader_process.py": "/proc/self/statm of its own process"}

OWN = "a file of our own run folder, which may be damaged; errors are one sentence"
IN_PROCESS = "runs in the process of read_in_process, which calls check_input first"
CHECKED = "a file that a function called before has checked"
DIRECT = {
    "classify/export/graph_file.py: onnxruntime.InferenceSession": "the file that this command has just written",
    "classify/features/store.py: open_memmap": OWN,
    "completion.py: path.read_text": "our own source, and that of plug-ins",
    "datasets/image_file.py: mmap.mmap": CHECKED,
    "datasets/voc_xml.py: parse_xml": "text that read_input has read",
    "commands/detect_stream.py: marker.read_text": OWN,
    "datasets/demo.py: (root / _RECIPE_FILE).read_bytes": "a file that the demo data set wrote",
    "help.py: Path(spec.origin).read_text": "our own source",
    "help.py: file.read_text": "our own presets",
    "parallel.py: path.read_bytes": "the script that the user runs",
    "plugins.py: distribution.read_text": "the metadata of an installed package",
    "proposals/edge_boxes.py: cv2.FileStorage": IN_PROCESS,
    "proposals/edge_boxes.py: cv2.ximgproc.createStructuredEdgeDetection": IN_PROCESS,
    "proposals/edge_boxes.py: storage.open": IN_PROCESS,
    "proposals/files/rcnn_mat.py: path.open": "the file that this function has just written",
    "runs/model_card.py: path.read_bytes": OWN,
    "tracking/follower.py: messages.read_text": "what the follower, which is our own program, has written",
    "tracking/follower.py: tracker.open": "a tracker's method, which opens no file",
    "engines/ray_cluster.py: path.read_text": OWN,
    "proposals/onnx_models/session.py: onnxruntime.InferenceSession": CHECKED + ", see model_file.py",
    "proposals/selective_search/objectness.py: own.read_text": "a file of this package",
    "runs/detect_settings.py: path.read_bytes": OWN,
    "runs/exported_graph.py: onnxruntime.InferenceSession": CHECKED + ", see model_file.py",
    "solver/training_log.py: path.read_bytes": OWN,
    "storage/atomic.py: os.open": "makes a new file, or takes the lock of one that it made",
    "storage/atomic.py: scratch.open": "the file that this function has just written",
    "storage/file_lock.py: os.open": "a lock file; its callers check that it is no link",
    "storage/lmdb_pages.py: mmap.mmap": CHECKED,
    "storage/lmdb_store.py: file.open": "lock.mdb, which is checked to be a regular file",
    "storage/lmdb_store.py: os.open": "lock.mdb again, to give it its space on the disk",
    "storage/lmdb_store.py: lmdb.open": CHECKED + ", see lmdb_pages.py",
    "storage/remote_file.py: path.read_bytes": "a block that this module wrote, whose length is checked",
    "storage/torch_file.py: torch.load": IN_PROCESS,
}
"""Readers, most of them of files that we wrote ourselves, each with the reason why it may read without the guard."""

METHODS = {"open", "read_bytes", "read_text"}
FUNCTIONS = {
    "COCO", "FileStorage", "InferenceSession", "createStructuredEdgeDetection", "fromfile", "genfromtxt", "imread",
    "imreadmulti", "load_file", "loadmat", "loadtxt", "memmap", "mmap", "open_memmap", "parse_xml", "safe_open",
    "sendfile", "whosmat",
}  # fmt: skip
LOADS = {"np.load", "numpy.load", "torch.load", "torch.export.load", "torch.jit.load", "json.load", "pickle.load",
         "OmegaConf.load", "yaml.safe_load", "ElementTree.parse", "ElementTree.iterparse"}  # fmt: skip
CHECKS = {"check_input", "open_input", "read_input", "read_text", "read_in_process"}


def calls(node: ast.AST) -> Iterator[ast.Call]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Call))


def reads_a_file(call: ast.Call) -> bool:
    """Whether a call opens a file for reading, as far as its text says."""
    callee = ast.unparse(call.func)
    name = callee.rpartition(".")[2]
    if name == "open":
        modes = [one.value for one in (*call.args, *(word.value for word in call.keywords)) if is_mode(one)]
        return not any(mode[0] in "wax" for mode in modes) and "os.O_WRONLY" not in ast.unparse(call)
    return name in METHODS | FUNCTIONS or callee in LOADS


def is_mode(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 5


def unguarded(source: str) -> set[str]:
    """The calls that read files in functions that don't call the guard."""
    found = set()
    for statement in statements(ast.parse(source)):
        if not any(ast.unparse(call.func) in CHECKS for call in calls(statement)):
            found |= {ast.unparse(call.func) for call in calls(statement) if reads_a_file(call)}
    return found


def statements(tree: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
    """The functions and other statements of a module, methods one by one."""
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            yield from statements(statement)
        else:
            yield statement


def all_unguarded() -> set[str]:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in GUARD and not name.endswith("_pb2.py"):
            found |= {f"{name}: {call}" for call in unguarded(path.read_text(encoding="utf-8"))}
    return found


def test_every_reader_goes_through_the_guard() -> None:
    assert sorted(all_unguarded() - DIRECT.keys()) == []


def test_the_lists_name_nothing_that_is_gone() -> None:
    assert sorted(DIRECT.keys() - all_unguarded()) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open(p)", True),
        ("open(p, 'rb')", True),
        ("p.open('r+b')", True),
        ("p.open('w')", False),
        ("p.open(mode='a')", False),
        ("p.open('xb', encoding='utf-8')", False),
        ("os.open(p, os.O_RDONLY)", True),
        ("os.open(p, os.O_WRONLY)", False),
        ("p.read_bytes()", True),
        ("np.load(p)", True),
        ("torch.load(p, weights_only=True)", True),
        ("scipy.io.loadmat(p)", True),
        ("lmdb.open(p)", True),
        ("cv2.imread(p)", True),
        ("PIL.Image.open(p)", True),
        ("load_file(p)", True),
        ("safe_open(p, 'pt')", True),
        ("json.load(f)", True),
        ("json.loads(t)", False),
        ("ElementTree.parse(p)", True),
        ("self.load(p)", False),
        ("check_input(p, 'weights'); load_file(p)", False),
        ("open_input(p, 'weights')", False),
    ],
)
def test_the_search_finds_readers(line: str, found: bool) -> None:
    assert bool(unguarded(f"def read(p):\n    {line}")) == found
    assert bool(unguarded(f"class Reader:\n    def read(self, p):\n        {line}")) == found
