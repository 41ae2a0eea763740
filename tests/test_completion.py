"""The completion of a shell: every setting and option is offered, and nothing heavy is imported for it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from detpipe.class_path import load_class
from detpipe.commands.groups import GROUPS
from detpipe.commands.table import COMMANDS
from detpipe.completion import completions, fields_of, split

CLASSES = sorted(
    {row.settings for row in COMMANDS.values()} | {one for group in GROUPS.values() for one in group.values()}
)


def offered(command: str, line: str) -> list[str]:
    """What is offered for the last word of a line."""
    *words, typed = line.split(" ")
    return completions(COMMANDS[command], words, typed)


@pytest.mark.parametrize("path", CLASSES)
def test_the_source_has_the_fields_of_the_class(path: str) -> None:
    assert set(fields_of(*split(path))) == {field.name for field in dataclasses.fields(load_class(path))}


@pytest.mark.parametrize(
    ("command", "line", "wanted"),
    [
        ("run", "dataset=", [f"dataset={word}" for word in sorted(GROUPS["dataset"])]),
        ("propose", "proposals=sl", ["proposals=sliding_window"]),
        ("run", "head=svm", ["head=svm", "head=svm_2014"]),
        ("train-cls", "solver.max_", ["solver.max_iter="]),
        ("run", "seed=1 solver.lr.warm", ["solver.lr.warmup_iter=", "solver.lr.warmup_start="]),
        ("run", "head=svm head.c", ["head.c="]),
        ("run", "head.c", []),
        ("run", "tuning.fr", ["tuning.freeze_stages="]),
        ("detect", "detect.features.", ["detect.features.refine="]),
        ("run", "device=c", ["device=cpu", "device=cuda"]),
        ("run", "overwrite=", ["overwrite=false", "overwrite=true"]),
        ("run", "experiment=rcnn_f", ["experiment=rcnn_frozen"]),
        ("proposals export", "form", ["format="]),
        ("proposals export", "format=co", ["format=coco"]),
        ("proposals fuse", "proposals.dup", ["proposals.duplicate_iou="]),
        ("run", "--q", ["--quiet"]),
        ("run", "nothing.", []),
        ("run", "solver.nothing.x=", []),
        ("detect", "sampling", []),
    ],
)
def test_what_is_offered(command: str, line: str, wanted: list[str]) -> None:
    assert offered(command, line) == wanted


def test_files_for_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.jpg").write_text("")
    assert offered("detect", "source=ph") == ["source=photo.jpg", "source=photos/"]
    assert offered("detect", f"source={tmp_path}/photos") == [f"source={tmp_path}/photos/"]
    assert offered("detect", "source=nowhere/") == []


def test_the_first_key_is_quick() -> None:
    """Hydra, numpy, OpenCV, numba and torch take seconds to import on a busy machine."""
    program = (
        "import sys; from detpipe.completion import completions; from detpipe.commands.table import COMMANDS\n"
        "completions(COMMANDS['run'], ['head=svm'], 'head.'); completions(COMMANDS['run'], [], '')\n"
        "print(*sorted({'hydra', 'omegaconf', 'numpy', 'cv2', 'numba', 'torch', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
