"""engine=local: processes that run tasks, die and are stopped."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from detpipe.engines.engine import TaskCall
from detpipe.engines.local import LocalEngine
from detpipe.progress import progress


def do(settings: Mapping[str, Any], task: int, tasks: int) -> None:
    """A task: writes its number, and fails or dies where the settings say so."""
    folder = Path(settings["folder"])
    for _ in progress(range(3), "do", total=3, unit="things"):
        pass
    logging.getLogger("detpipe").warning("line of %d of %d", task, tasks)
    print("a library prints")  # noqa: T201
    if task == settings.get("dies") and not (folder / "died").exists():
        if settings.get("once"):
            (folder / "died").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    if task == settings.get("fails"):
        raise ValueError("what was expected, what came")
    (folder / str(task)).write_text(os.environ["OMP_NUM_THREADS"])


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.states: list[tuple[str, int]] = []
        self.reasons: list[str] = []
        self.lines: list[str] = []
        self.counts = 0

    def started(self, task: int, where: str) -> None:
        self.states.append(("started", task))

    def event(self, task: int, event: Mapping[str, Any]) -> None:
        if event["event"] == "log":
            self.lines.append(event["text"])
        else:
            assert event["name"] == "do"
            self.counts += event["advance"]

    def finished(self, task: int) -> None:
        self.states.append(("finished", task))

    def repeated(self, task: int, reason: str) -> None:
        self.states.append(("repeated", task))
        self.reasons.append(reason)

    def failed(self, task: int, reason: str) -> None:
        self.states.append(("failed", task))
        self.reasons.append(reason)


def run(folder: Path, tasks: Sequence[int], *, processes: int = 1, retries: int = 2, **settings: Any) -> Seen:
    seen = Seen()
    call = TaskCall(f"{__name__}:do", {"folder": str(folder), **settings}, 4)
    LocalEngine(processes=processes, retries=retries).run(call, tasks, seen)
    return seen


def test_no_tasks_start_no_process(tmp_path: Path) -> None:
    assert run(tmp_path, []).states == []


def test_tasks_report_and_finish(tmp_path: Path) -> None:
    seen = run(tmp_path, [2, 4], processes=2)
    assert sorted(seen.states) == [("finished", 2), ("finished", 4), ("started", 2), ("started", 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]
    assert sorted(seen.lines) == ["line of 2 of 4", "line of 4 of 4"]
    assert seen.counts == 6


def test_a_killed_task_is_repeated(tmp_path: Path) -> None:
    seen = run(tmp_path, [1, 2], dies=1, once=True)
    assert seen.states == [
        ("started", 1), ("repeated", 1), ("started", 1), ("finished", 1), ("started", 2), ("finished", 2),
    ]  # fmt: skip
    assert seen.reasons == ["its process was killed by SIGKILL"]


def test_a_task_that_always_dies_or_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    seen = run(tmp_path, [1, 2, 3], retries=1, dies=1, fails=2)
    assert [state for state in seen.states if state[0] != "started"] == [
        ("repeated", 1), ("failed", 1), ("failed", 2), ("finished", 3),
    ]  # fmt: skip
    assert seen.reasons[-1] == "what was expected, what came"


@pytest.mark.parametrize(("name", "value"), [("processes", 0), ("processes", 2000), ("retries", -1)])
def test_wrong_settings(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        LocalEngine(**{name: value})
