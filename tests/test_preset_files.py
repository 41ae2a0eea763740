"""Presets of other people: what is no YAML, or more than can be read, is refused at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from detpipe.preset_files import check_preset
from tests.command_line import detpipe

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in "bcdefghijk"
)


def checked(folder: Path, content: str | bytes) -> None:
    path = folder / "preset.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    check_preset(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed: [1\n foo", "a mistake in line"),
        (b"\x98\xff\x00", "cannot be read"),
        ("just text", "got a str"),
        ("- a", "got a list"),
        ("", "an empty file"),
        ("# nothing\n", "got nothing"),
        ('seed: !!python/object/apply:os.system ["true"]', "a mistake in line 1"),
        ("1: 3", "expected names of settings, got 1"),
        (f"seed: {'1' * 5000}", "cannot be read"),
        ("hydra: {callbacks: {a: {_target_: os.system}}}", "may run any code"),
        ("a: " + "[" * 100 + "]" * 100, "levels"),
        ("a: " + "[" * 100_000 + "]" * 100_000, "cannot be read"),
        ("a: &a\n  b: *a", "holds itself"),
        (BOMB, "aliases stand for other aliases"),
        ("a: " + "x" * 10**6, "a larger file"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_preset(tmp_path: Path, content: str | bytes, said: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=said) as refused:
        checked(tmp_path, content)
    assert "preset.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert time.process_time() - begun < 5


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match="named pipe"):
        check_preset(tmp_path / "pipe.yaml")


def test_a_preset(tmp_path: Path) -> None:
    checked(tmp_path, "# @package _global_\ndefaults:\n  - override /head: svm\nsolver: {max_iter: 3}\n")


@pytest.mark.parametrize(
    ("group", "content", "said"),
    [
        ("experiment", "seed: [1\n", "expected YAML"),
        ("experiment", "# @package _global_\nsolver: {max_itr: 3}\n", "did you mean solver.max_iter"),
        ("solver", "max_itr: 3\n", "solver=mine: expected settings of `detpipe run`, got the unknown name max_itr"),
        ("experiment", "# @package _global_\nrun_dir: ${run_dir}\n", "Recursive interpolation"),
        ("experiment", "defaults: [mine]\n", "refer to themselves"),
    ],
)
def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, content: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / group / "mine.yaml").write_text(content)
    outcome = detpipe("run", "dataset=demo", f"{group}=mine", "--config-dir", "mine")
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert not (tmp_path / "runs").exists()
