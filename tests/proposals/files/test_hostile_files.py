"""Hostile proposal files end in one sentence, within limits of memory and time that are measured here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from detpipe.proposals.files.imported import ImportedProposals
from tests.proposals.files.hostile import JSONS, MATS, PICKLES
from tests.storage.read_measured import measure

FILES = {
    **{f"{name}.pkl": make for name, make in PICKLES.items()},
    **{f"{name}.mat": make for name, make in MATS.items()},
    **{f"{name}.json": make for name, make in JSONS.items()},
}
MEGABYTES, SECONDS = 200, 0.3
"""The limits of the test; the real ones are five and thirty times as high."""
LARGE = {"zeros that are compressed.mat", "cells 20,000 deep.mat"}


def check(path: Path) -> None:
    ImportedProposals(path=str(path)).check()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What reading each of FILES gave, all read by one process after another."""
    folder, paths = tmp_path_factory.mktemp("hostile"), []
    for name, make in FILES.items():
        paths.append(folder / name)
        paths[-1].write_bytes(make())
        assert name in LARGE or paths[-1].stat().st_size < 10_000
    return measure(f"{__name__}:check", MEGABYTES, SECONDS, paths)


@pytest.mark.parametrize("name", FILES)
def test_one_sentence_within_the_time(name: str, measured: dict[str, Any]) -> None:
    error, seconds = measured["outcomes"][name]
    assert error is not None
    assert f"{name}: " in error
    assert "\n" not in error
    assert len(error) < 1_000
    assert seconds < 60  # processor time is limited; other work on this machine is not


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("memo index of 2^30.pkl", "memory.*DETPIPE_INPUT_LIMITS=10"),
        ("hash of a doubled tuple.pkl", "takes longer than 0.3 s.*DETPIPE_INPUT_LIMITS=10"),
        ("cells 20,000 deep.mat", "crashed"),
        ("zeros that are compressed.mat", "memory"),
        ("a dict in itself.pkl", "RecursionError"),
    ],
)
def test_the_cause_and_the_remedy_are_named(name: str, cause: str, measured: dict[str, Any]) -> None:
    error, _ = measured["outcomes"][name]
    assert error is not None
    assert re.search(cause, error), error


def test_memory_is_bounded(measured: dict[str, Any]) -> None:
    assert measured["own_peak"] < 150 << 20
    assert measured["reader_peak"] < (MEGABYTES + 150) << 20
