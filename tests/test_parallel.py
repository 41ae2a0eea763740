"""The ordered map: same results for any number of workers, a bounded window, and a word on dead workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from detpipe.parallel import WorkerDiedError, ordered_map, resolve_workers


def slow_square(number: int) -> int:
    time.sleep(0.05 if number % 3 == 0 else 0)
    return number * number


def refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError("three is bad")
    return number


def die_at_five(number: int) -> int:
    if number == 0:
        time.sleep(1.0)
    if number == 5:
        time.sleep(0.3)  # so that the others' results are home
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def process_id(number: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_items_order(workers: int) -> None:
    assert list(ordered_map(slow_square, range(20), workers=workers)) == [n * n for n in range(20)]


def test_threads_are_this_process_and_keep_the_order() -> None:
    assert list(ordered_map(slow_square, range(20), workers=2, max_threads=2)) == [n * n for n in range(20)]
    assert set(ordered_map(process_id, range(8), workers=2, max_threads=2)) == {os.getpid()}


@pytest.mark.parametrize("workers", [0, 2, -1])
def test_no_items(workers: int) -> None:
    assert list(ordered_map(slow_square, [], workers=workers)) == []


def test_one_worker_is_this_process() -> None:
    assert set(ordered_map(process_id, range(3), workers=1)) == {os.getpid()}


def test_two_workers_are_others() -> None:
    assert os.getpid() not in set(ordered_map(process_id, range(8), workers=2, max_threads=1))
    assert os.getpid() not in set(ordered_map(process_id, range(8), workers=2))


@pytest.mark.parametrize(("workers", "max_threads"), [(0, 1), (2, 1), (2, 2)])
def test_an_exception_is_raised_at_its_turn(workers: int, max_threads: int) -> None:
    results = ordered_map(refuse_three, range(6), workers=workers, max_threads=max_threads)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three is bad"):
        next(results)


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = ordered_map(slow_square, items(), workers=2)
    assert next(results) == 0
    assert len(taken) <= 8
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 8


def test_a_killed_worker_is_an_error_that_names_the_item() -> None:
    results = ordered_map(die_at_five, range(8), workers=2, describe=lambda n: f"image{n}.jpg")
    with pytest.raises(WorkerDiedError, match=r"image5\.jpg") as caught:
        list(results)
    assert "image1.jpg" not in str(caught.value)  # done, and only waiting for its turn


def test_resolve_workers() -> None:
    assert resolve_workers(0) == 0
    assert resolve_workers(3) == 3
    assert resolve_workers(-1) == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="-1"):
        resolve_workers(-2)


def run_script(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


WORK = """
import logging, os
from detpipe.parallel import ordered_map
from tests.test_parallel import process_id
logging.basicConfig()
print("started")
def work():
    found = set(ordered_map(process_id, range(8), workers=2))
    print("threads" if found == {os.getpid()} else "processes")
"""


def test_a_script_without_guard_uses_threads_and_says_so(tmp_path: Path) -> None:
    done = run_script(tmp_path / "script.py", WORK + "work()\n")
    assert done.stdout.split() == ["started", "threads"], done.stderr
    assert "script.py" in done.stderr
    assert "__name__" in done.stderr


@pytest.mark.parametrize("guard", ["if __name__ == '__main__':", "if '__main__' == __name__:"])
def test_a_script_with_guard_uses_processes(tmp_path: Path, guard: str) -> None:
    done = run_script(tmp_path / "script.py", WORK + f"{guard}\n    work()\n")
    assert done.stdout.split().count("processes") == 1, done.stderr
    assert "__name__" not in done.stderr


def test_a_call_above_the_guard_uses_threads(tmp_path: Path) -> None:
    done = run_script(tmp_path / "script.py", WORK + "work()\nif __name__ == '__main__':\n    pass\n")
    assert done.stdout.split() == ["started", "threads"], done.stderr


def test_a_script_that_its_workers_cannot_import_is_named(tmp_path: Path) -> None:
    text = WORK + "if __name__ != '__main__':\n    raise SystemExit(3)\nelse:\n    work()\n"
    done = run_script(tmp_path / "script.py", text)
    assert "WorkerDiedError" in done.stderr
    assert "script.py" in done.stderr.splitlines()[-1]
    assert "workers=0" in done.stderr.splitlines()[-1]
    assert "memory" not in done.stderr
