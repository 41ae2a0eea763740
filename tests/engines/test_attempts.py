"""Attempts at a stream's work. A killed process is one that began and did not end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from detpipe.engines import attempts as module
from detpipe.engines.attempts import Attempts, Counts
from detpipe.engines.engine import TaskError


class LostError(Exception):
    """What Ray raises for a lost actor."""


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Counts in this process."""
    ray = SimpleNamespace(get=lambda answer: answer, exceptions=SimpleNamespace(RayError=LostError))
    monkeypatch.setattr(module, "ray_package", lambda: ray)
    return Counts()


def attempts(counts: Counts, retries: int) -> Attempts:
    """The counts, called as Ray calls the methods of an actor."""
    methods = {name: SimpleNamespace(remote=getattr(counts, name)) for name in ("begin", "end")}
    return Attempts(SimpleNamespace(**methods), retries)


def fail(own: Attempts, work: str) -> None:
    with own.one(work, "worked"):
        raise ValueError("what was expected, what came")


def test_work_that_ends_or_fails_is_forgotten(counts: Counts) -> None:
    own = attempts(counts, 0)
    for _ in range(3):
        with own.one("a", "worked"):
            pass
        with pytest.raises(ValueError, match="what came"):
            fail(own, "a")
    assert counts.begin("a") == 0


def test_as_many_killed_processes_as_may_be(counts: Counts) -> None:
    own = attempts(counts, 1)
    counts.begin("a")
    with own.one("a", "worked"):  # the one retry
        pass
    counts.begin("a")
    counts.begin("a")
    with own.one("b", "worked"):
        pass
    refused = pytest.raises(
        TaskError, match=r"2 processes .* detected in a\.jpg.*engine\.retries=1.*memory.*; look at it"
    )
    with refused, own.one("a", "detected in a.jpg", "; look at it"):
        raise AssertionError


def test_lost_counts_begin_again(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_work: str) -> int:
        raise LostError

    monkeypatch.setattr(counts, "begin", lost)
    with attempts(counts, 0).one("a", "worked"):
        pass
