"""`proposals=python`: what a class may return, what is refused with its name, workers, keys and kept files."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detpipe.parallel import ordered_map
from detpipe.plugins import PluginError
from detpipe.proposals import python_object
from detpipe.proposals.methods import proposer_of
from detpipe.proposals.python_object import PythonProposals, PythonProposerError
from detpipe.structures import Proposals

IMAGE = np.zeros((40, 60, 3), np.uint8)

SOURCE = '''
import numpy as np
from detpipe import Proposals

class Corner:
    """The corner box, as wide as the first pixel says, and a box beside it."""

    def __init__(self, score=0.5, weights=None):
        self.score = score
        self.weights = None if weights is None else open(weights).read()

    def __call__(self, image):
        assert image.shape[2] == 3 and image.dtype == np.uint8
        image[:] = 0
        boxes = [[0, 0, 10, 10 + len(self.weights or "")], [5, 5, 30, 30]]
        return np.array(boxes), np.array([self.score, 0.7])

class Unpicklable(Corner):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.hook = lambda: 1

class Failing:
    def __init__(self, late=True):
        if not late:
            raise RuntimeError("no licence")

    def __call__(self, image):
        return image[:, 999]

class NotCallable:
    pass

def whole(image):
    height, width = image.shape[:2]
    return Proposals(np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32))

number = 3
'''


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory has the module own_boxes."""
    (tmp_path / "own_boxes.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    python_object._made.cache_clear()
    yield tmp_path / "own_boxes.py"
    sys.modules.pop("own_boxes", None)
    python_object._made.cache_clear()


def returning(monkeypatch: pytest.MonkeyPatch, own_module: Path, value: Any) -> PythonProposals:
    """A proposer whose function returns the value."""
    monkeypatch.syspath_prepend(own_module.parent)
    monkeypatch.setattr(importlib.import_module("own_boxes"), "whole", lambda image: value)
    return PythonProposals(object="own_boxes:whole")


def test_a_class_in_the_working_directory(own_module: Path) -> None:
    proposer = PythonProposals(object="own_boxes:Corner", arguments={"score": 0.9})
    proposer.check()
    found = proposer(np.full((40, 60, 3), 200, np.uint8))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [5, 5, 30, 30]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert PythonProposals(object="own_boxes:Corner")(IMAGE).boxes[0].tolist() == [5, 5, 30, 30]
    assert len(PythonProposals(object="own_boxes:Corner", max_proposals=1)(IMAGE)) == 1


def test_the_image_of_the_caller_is_not_changed(own_module: Path) -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    PythonProposals(object="own_boxes:Corner")(image)
    assert image.min() == 200


def test_a_function(own_module: Path) -> None:
    assert PythonProposals(object="own_boxes:whole")(IMAGE).boxes.tolist() == [[0, 0, 60, 40]]


BOXES = [[1.0, 2, 30, 20], [5, 5, 90, 90], [7, 7, 7, 9]]


@pytest.mark.parametrize(
    "result",
    [
        (BOXES, [0.1, 0.9, 1]),
        [np.array(BOXES), np.array([0.1, 0.9, 1])],
        (torch.tensor(BOXES, requires_grad=True), torch.tensor([0.1, 0.9, 1], dtype=torch.bfloat16)),
        (torch.tensor(BOXES).double(), [0.1, 0.9, 1]),
        Proposals(np.array([[5, 5, 90, 90], [1, 2, 30, 20]], np.float32), np.array([0.9, 0.1], np.float32)),
    ],
)
def test_what_it_may_return(result: Any, own_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second box is clipped, the third is empty."""
    found = returning(monkeypatch, own_module, result)(IMAGE)
    assert found.boxes.tolist() == [[5, 5, 60, 40], [1, 2, 30, 20]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.1], abs=2e-3)  # bfloat16


@pytest.mark.parametrize("nothing", [([], []), (np.zeros((0, 4)), np.zeros(0)), (torch.zeros(0, 4), torch.zeros(0))])
def test_nothing_found(nothing: Any, own_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert returning(monkeypatch, own_module, nothing)(IMAGE).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        (None, "NoneType"),
        ({"boxes": BOXES}, "dict"),
        (np.zeros((3, 5)), "ndarray"),
        ((BOXES, [0.1, 0.2]), r"boxes \(3, 4\) and scores \(2,\)"),
        ((np.zeros((3, 5)), np.zeros(3)), r"boxes \(3, 5\)"),
        ((np.zeros((4, 3)), np.zeros(3)), r"boxes \(4, 3\)"),
        ((np.zeros(4), np.zeros(1)), r"boxes \(4,\)"),
        (([[1, 2], [3]], [1, 2]), "different lengths"),
        (([["a", "b", "c", "d"]], [1]), "numbers"),
        (([[1, 2, 3, np.nan]], [1]), "NaN"),
        (([[1, 2, 3, 4]], [np.inf]), "infinity"),
        (([[1, 2, 3, 1e300]], [1]), "infinity"),
        (([[30, 20, 10, 15]], [1]), "x y width height"),
        (([[0.1, 0.2, 0.5, 0.5], [0, 0, 1, 1]], [1, 1]), "shares"),
        (([[100, 100, 200, 200]], [1]), "pixels of another size"),
    ],
)
def test_other_results_are_refused(result: Any, cause: str, own_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PythonProposerError, match=rf"own_boxes:whole: .*{cause}"):
        returning(monkeypatch, own_module, result)(IMAGE)


@pytest.mark.parametrize(
    ("name", "arguments", "cause"),
    [
        ("", {}, "package.module:Class"),
        ("own_boxes", {}, "package.module:Class"),
        ("own_boxes:", {}, "package.module:Class"),
        ("own_boxes:Nothing", {}, "got none"),
        ("no_such_module:Class", {}, "no_such_module.*working directory"),
        ("own_boxes.inner:Class", {}, "own_boxes.inner"),
        ("own_boxes:number", {}, "class or function.*int"),
        ("own_boxes:NotCallable", {}, "__call__"),
        ("own_boxes:whole", {"a": 1}, "no proposals.arguments"),
        ("own_boxes:Corner", {"colour": 1}, "TypeError.*colour"),
        ("own_boxes:Failing", {"late": False}, r"RuntimeError: no licence .*own_boxes\.py:\d+"),
        ("subprocess:call", {}, "Python's own"),
        ("os:system", {}, "Python's own"),
    ],
)
def test_wrong_objects_are_named(name: str, arguments: dict[str, Any], cause: str, own_module: Path) -> None:
    with pytest.raises(PythonProposerError, match=rf"proposals\.object.*{name}.*{cause}"):
        PythonProposals(object=name, arguments=arguments).check()


def test_an_error_in_the_call_names_class_and_line(own_module: Path) -> None:
    proposer = PythonProposals(object="own_boxes:Failing")
    proposer.check()
    line = SOURCE.splitlines().index("        return image[:, 999]") + 1
    with pytest.raises(PythonProposerError, match=rf"own_boxes:Failing: .*IndexError.*own_boxes\.py:{line}"):
        proposer(IMAGE)


def test_an_error_in_the_module_names_it(own_module: Path) -> None:
    own_module.write_text("import nothing_like_it")
    with pytest.raises(PythonProposerError, match=r"own_boxes:Corner: .*nothing_like_it"):
        PythonProposals(object="own_boxes:Corner").check()


def test_what_pickles_runs_in_processes_and_the_rest_here(own_module: Path) -> None:
    images = [np.full((40, 60, 3), number, np.uint8) for number in range(5)]
    for name, threads in (("Corner", False), ("Unpicklable", True)):
        proposer = PythonProposals(object=f"own_boxes:{name}", arguments={"score": 0.9})
        assert (proposer.max_threads > 1) == threads
        alone = [proposer(image).boxes.tolist() for image in images]
        shared = ordered_map(proposer, images, workers=2, max_threads=proposer.max_threads)
        assert [one.boxes.tolist() for one in shared] == alone


def test_the_key_has_the_code_and_the_files(own_module: Path) -> None:
    (own_module.parent / "w.txt").write_text("abc")
    proposer = PythonProposals(object="own_boxes:Corner", arguments={"weights": "w.txt"})
    first = proposer.inputs()
    assert set(first) == {"module own_boxes", "argument weights"}
    assert proposer.describe()["object"] == "own_boxes:Corner"
    assert proposer.describe()["arguments"] == {"weights": "w.txt"}
    (own_module.parent / "w.txt").write_text("abcd")
    second = proposer.inputs()
    assert second["argument weights"] != first["argument weights"]
    own_module.write_text(SOURCE + "\n# changed")
    assert proposer.inputs()["module own_boxes"] != second["module own_boxes"]
    assert set(PythonProposals(object="own_boxes:whole").inputs()) == {"module own_boxes"}


def test_files_are_kept_and_the_copies_are_used(
    own_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.txt").write_text(name)
    arguments = {"weights": "a/w.txt", "more": [{"weights": "b/w.txt"}, 3], "score": 0.9}
    made = PythonProposals(object="own_boxes:Corner", arguments=arguments)
    assert made.kept_in(tmp_path / "kept") == made
    made.keep(tmp_path / "kept")
    for name in ("a", "b"):
        (tmp_path / name / "w.txt").unlink()
    monkeypatch.setenv("DETPIPE_PLUGINS", "own_boxes")
    again = proposer_of(json.loads(json.dumps(made.describe(), sort_keys=True)))
    assert again == made
    kept = again.kept_in(tmp_path / "kept").describe()["arguments"]
    assert Path(kept["weights"]).read_text() == "a"
    assert Path(kept["more"][0]["weights"]).read_text() == "b"
    assert (kept["more"][1], kept["score"]) == (3, 0.9)


def test_arguments_must_be_plain() -> None:
    with pytest.raises(TypeError, match=r"proposals\.arguments"):
        PythonProposals(object="a:b", arguments={"x": object()})


def test_a_class_that_only_a_file_names_is_not_imported(own_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = PythonProposals(object="own_boxes:Corner").describe()
    monkeypatch.delitem(sys.modules, "own_boxes", raising=False)
    monkeypatch.delenv("DETPIPE_PLUGINS", raising=False)
    with pytest.raises(PluginError, match="DETPIPE_PLUGINS=own_boxes"):
        proposer_of(description)
    assert "own_boxes" not in sys.modules
    fused = {"method": "Fused", "sources": ["python"], "settings": {"python": {"object": "own_boxes:Corner"}}}
    with pytest.raises(PluginError, match=r"proposals\.object"):
        proposer_of(fused)
    monkeypatch.setenv("DETPIPE_PLUGINS", "own_boxes")
    found = proposer_of(description)
    assert found is not None
    assert len(found(IMAGE)) == 2
