"""Compiled functions: with and without a place for the cache, and the word that a long wait gets."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numba
import pytest

from detpipe import jit
from detpipe.jit import compiled, explained


def add(a: int, b: int) -> int:
    return a + b


def test_what_is_compiled_is_the_function():
    assert compiled(add)(2, 3) == 5


def test_without_a_place_for_the_cache_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch):
    real, asked = numba.njit, []

    def njit(function: Any, **settings: Any) -> Any:
        asked.append(settings)
        if settings.get("cache"):
            raise RuntimeError("cannot cache function 'add': no locator available for file 'x.py'")
        return real(function, **settings)

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(add)(2, 3) == 5
    assert asked == [{"cache": True, "nogil": True}, {"nogil": True}]


IN_ANOTHER_PROCESS = """
import sys
from numba.core import caching
# In the place of a folder that may not be written to, which a superuser doesn't know.
def refuse(*_):
    raise OSError("read-only")
caching.{locator}.ensure_cache_path = refuse
{more}
import numpy as np
from detpipe.proposals.selective_search.near_duplicates import duplicates_last
boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9]], np.int32)
print(duplicates_last(boxes, np.array([1, 0])).tolist(), len(duplicates_last.stats.cache_misses))
"""


def run(code: str, home: Path) -> str:
    unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HOME": str(home), "LOCALAPPDATA": str(home), "USERPROFILE": str(home)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_beside_a_folder_that_is_not_writable_the_users_own_is_taken(tmp_path: Path):
    code = IN_ANOTHER_PROCESS.format(locator="InTreeCacheLocator", more="")
    assert run(code, tmp_path) == "[1, 0] 1"
    stored = [path for path in tmp_path.rglob("*.nbi") if "near_duplicates" in path.name]
    assert stored != []
    # The second process finds what the first one left.
    assert run(code, tmp_path) == "[1, 0] 0"


def test_without_any_folder_it_works_too(tmp_path: Path):
    everywhere = "caching.UserWideCacheLocator.ensure_cache_path = refuse"
    code = IN_ANOTHER_PROCESS.format(locator="InTreeCacheLocator", more=everywhere)
    code = code.replace("len(duplicates_last.stats.cache_misses)", "len(duplicates_last.signatures)")
    assert run(code, tmp_path) == "[1, 0] 1"
    assert list(tmp_path.rglob("*.nbi")) == []


def test_a_long_first_call_is_explained(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(jit, "_PATIENCE", 0.01)
    with caplog.at_level(logging.INFO), explained("grouping"):
        for _ in range(500):
            if caplog.records:
                break
            time.sleep(0.01)
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("grouping: compiling")


def test_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(jit, "_PATIENCE", 0.2)
    with caplog.at_level(logging.INFO):
        with explained("grouping"):
            pass
        with pytest.raises(KeyError), explained("grouping"):
            raise KeyError
        time.sleep(0.4)
    assert caplog.records == []


def test_nothing_is_written_to_the_terminal_at_the_end(tmp_path: Path):
    """colorama, where it is installed, writes an escape code at the end if numba uses it."""
    pytest.importorskip("colorama")
    code = "import detpipe.jit\nfrom numba.core import errors\nprint(hasattr(errors, 'ColorShell'))"
    assert run(code, tmp_path) == "False"
