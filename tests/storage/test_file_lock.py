"""Locks between processes, here between threads: a lock belongs to an open file."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from detpipe.storage.file_lock import LockedError, locked

pytest.importorskip("fcntl", reason="this system has no such locks")


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locked(path, "writes here", wait=0):
        refused = pytest.raises(LockedError, match=r"a\.lock: process \d+ of .* writes here")
        with refused, locked(path, "writes here", wait=0):
            pass
    with locked(path, "writes here", wait=0):
        pass


def test_who_waits_for_a_deleted_lock_holds_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "shards" / "a.lock"
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path, "waits", wait=20):
            is_held.set()
            may_end.wait(20)

    with locked(path, "merges", wait=0):
        waiting = threading.Thread(target=hold)
        waiting.start()
        time.sleep(0.3)  # its file is open now
        path.unlink()
        path.parent.rmdir()
    assert is_held.wait(20)
    with pytest.raises(LockedError), locked(path, "comes later", wait=0):
        pass
    may_end.set()
    waiting.join()
