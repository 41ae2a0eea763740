"""The LMDB store: growth, kills, full disks, forks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.storage import lmdb_store
from detpipe.storage.lmdb_pages import check_pages, is_begun
from detpipe.storage.lmdb_store import MAX_KEY, DatabaseError, LmdbReader, LmdbWriter

KB = 1024


def fill(path: Path, count: int = 20, **options: Any) -> Path:
    with LmdbWriter(path, **options) as writer:
        for number in range(count):
            writer.put(b"%04d" % number, b"value %d" % number)
    return path


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_round_trip_in_key_order(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db") as writer:
        for key in (b"b", b"c", b"a"):
            writer.put(key, key * 2)
    with LmdbReader(tmp_path / "db") as reader:
        assert list(reader.items()) == [(b"a", b"aa"), (b"b", b"bb"), (b"c", b"cc")]
        assert list(reader.keys()) == [b"a", b"b", b"c"]
        assert reader.get(b"b") == b"bb"
        assert b"c" in reader
        assert b"d" not in reader
        assert len(reader) == 3


def test_no_records(tmp_path: Path) -> None:
    with LmdbReader(fill(tmp_path / "db", 0)) as reader:
        assert len(reader) == 0
        assert list(reader.items()) == list(reader.keys()) == []


def test_a_tiny_map_grows_many_times_and_loses_nothing(tmp_path: Path) -> None:
    values = {b"%05d" % number: os.urandom(1 + 37 * number % 3000) for number in range(1500)}
    with LmdbWriter(tmp_path / "db", map_size=64 * KB, transaction=50) as writer:
        for key, value in values.items():
            writer.put(key, value)
        writer.put(b"huge", bytes(3_000_000))
    with LmdbReader(tmp_path / "db") as reader:
        assert dict(reader.items()) == {**values, b"huge": bytes(3_000_000)}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=20_000)), max_size=30), st.integers(1, 7)
)
def test_any_records_in_any_transactions(records: list[tuple[bytes, bytes]], transaction: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with LmdbWriter(Path(folder), map_size=64 * KB, transaction=transaction) as writer:
            for key, value in records:
                writer.put(key, value)
        with LmdbReader(Path(folder)) as reader:
            assert list(reader.items()) == sorted(dict(records).items())


def test_an_existing_database_is_continued(tmp_path: Path) -> None:
    fill(tmp_path / "db", 20)
    with LmdbWriter(tmp_path / "db", map_size=64 * KB) as writer:
        assert len(writer) == 20
        assert b"0019" in writer
        writer.put(b"9999", b"")
        assert b"9999" in writer  # although not yet on disk
        assert len(writer) == 20
    with LmdbReader(tmp_path / "db") as reader:
        assert len(reader) == 21


def test_a_full_transaction_is_on_disk_at_once(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db", transaction=3) as writer:
        for number in range(5):
            writer.put(b"%d" % number, b"")
        assert len(writer) == 3
        writer.commit()
        assert len(writer) == 5


@pytest.mark.parametrize("key", [b"", bytes(MAX_KEY + 1)])
def test_a_key_that_lmdb_cannot_hold_is_refused_at_once(tmp_path: Path, key: bytes) -> None:
    with LmdbWriter(tmp_path / "db") as writer:
        writer.put(b"k" * MAX_KEY, b"")
        with pytest.raises(ValueError, match="expected a key of 1 to 511 bytes"):
            writer.put(key, b"")
    with LmdbReader(tmp_path / "db") as reader:
        assert len(reader) == 1


def test_kill_9_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from detpipe.storage.lmdb_store import LmdbWriter
        writer = LmdbWriter(Path(sys.argv[1]), map_size=65536, transaction=10)
        for number in range(537):
            writer.put(b"%04d" % number, b"x" * 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, tmp_path / "db").returncode == -signal.SIGKILL
    with LmdbReader(tmp_path / "db") as reader:
        assert list(reader.keys()) == [b"%04d" % number for number in range(530)]
    with LmdbWriter(tmp_path / "db", transaction=10) as writer:
        for number in range(530, 600):
            writer.put(b"%04d" % number, b"x" * 1000)
        assert len(writer) == 600


def test_a_full_disk_is_an_oserror_and_keeps_earlier_commits(tmp_path: Path) -> None:
    # A limit on the size of files stands in for the end of the disk: write() fails where the file would pass it.
    code = """
        import resource, signal, sys
        from pathlib import Path
        from detpipe.storage.lmdb_store import LmdbWriter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        put = 0
        try:
            with LmdbWriter(Path(sys.argv[1]), map_size=65536, transaction=10) as writer:
                for put in range(10000):
                    writer.put(b"%05d" % put, b"x" * 1000)
        except OSError as error:
            print(put, error)
            sys.exit(3)
    """
    done = python(code, tmp_path / "db")
    assert done.returncode == 3, done.stderr
    last, _, words = done.stdout.partition(" ")
    assert "could not write 10 records" in words
    assert "run the same command again" in words
    with LmdbReader(tmp_path / "db") as reader:
        assert list(reader.keys()) == [b"%05d" % number for number in range(int(last) // 10 * 10)]
        assert len(reader) > 300
    with LmdbWriter(tmp_path / "db") as writer:  # there is room again
        writer.put(b"99999", b"")


def test_a_new_database_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left that a later command takes for a damaged database."""

    def open_half(path: str, **_options: Any) -> Any:
        (Path(path) / "data.mdb").write_bytes(bytes(4096))
        raise lmdb.DiskError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lmdb, "open", open_half)
        with pytest.raises(OSError, match="free disk space and run the command again") as caught:
            LmdbWriter(tmp_path / "db")
    assert caught.value.filename == str(tmp_path / "db" / "data.mdb")
    with LmdbReader(fill(tmp_path / "db", 3)) as reader:
        assert len(reader) == 3


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system can't reserve space")
def test_the_lock_file_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB writes it through a memory map: without its space reserved, the process would end by SIGBUS."""
    fill(tmp_path / "db", 3)
    assert (tmp_path / "db" / "lock.mdb").stat().st_blocks * 512 >= 8000
    (tmp_path / "db" / "lock.mdb").unlink()

    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match="free disk space and run the command again") as caught:
            LmdbWriter(tmp_path / "db")
    assert caught.value.filename == str(tmp_path / "db" / "lock.mdb")
    with LmdbReader(fill(tmp_path / "db", 5)) as reader:
        assert len(reader) == 5


def test_the_batch_outlives_a_failed_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LmdbWriter(fill(tmp_path / "db", 5))
    environment = writer._env

    class FullDisk:
        def __getattr__(self, name: str) -> Any:
            if name == "begin":
                raise lmdb.Error("mdb_txn_commit: No space left on device")
            return getattr(environment, name)

    monkeypatch.setattr(writer, "_env", FullDisk())
    writer.put(b"new", b"1")
    with pytest.raises(OSError, match="the disk may be full") as caught:
        writer.commit()
    assert str(tmp_path / "db") in str(caught.value)
    monkeypatch.undo()
    writer.close()
    with LmdbReader(tmp_path / "db") as reader:
        assert reader.get(b"new") == b"1"
        assert len(reader) == 6


def test_an_error_in_the_block_keeps_what_was_put(tmp_path: Path) -> None:
    def fail() -> None:
        with LmdbWriter(tmp_path / "db") as writer:
            writer.put(b"a", b"1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with LmdbReader(tmp_path / "db") as reader:
        assert reader.get(b"a") == b"1"


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with LmdbReader(fill(tmp_path / "db")) as reader, pytest.raises(KeyError, match="no record b'nope'"):
        reader.get(b"nope")


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="run the stage"):
        LmdbReader(tmp_path / "db")


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000])
def test_what_is_no_lmdb_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DatabaseError, match="expected an LMDB"):
        len(LmdbReader(tmp_path))
    if content:  # An empty file is what a kill at the very start leaves; a writer begins anew there.
        with pytest.raises(DatabaseError, match="expected an LMDB"):
            LmdbWriter(tmp_path)


def test_an_unfinished_copy_is_an_error_and_no_crash(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from detpipe.storage.lmdb_store import DatabaseError, LmdbReader, LmdbWriter
        for open_database in (lambda path: list(LmdbReader(path).items()), LmdbWriter):
            try:
                open_database(Path(sys.argv[1]))
            except DatabaseError as error:
                print(error)
    """
    fill(tmp_path / "db", 5000)
    file = tmp_path / "db" / "data.mdb"
    os.truncate(file, file.stat().st_size // 2)
    done = python(code, tmp_path / "db")
    assert (done.returncode, done.stdout.count("truncated")) == (0, 2), done


def test_the_reader_opens_on_first_use_and_again_after_close(tmp_path: Path) -> None:
    reader = LmdbReader(fill(tmp_path / "db"))
    assert reader._environment is None
    assert len(reader) == 20
    reader.close()
    assert reader._environment is None
    assert len(reader) == 20
    reader.close()
    reader.close()


def test_readers_of_one_process_share_a_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(fill(tmp_path / "db"))
    with LmdbReader(tmp_path / "db") as first:
        assert len(first) == 20
        with LmdbReader(tmp_path / "link") as second:
            assert second.get(b"0007") == b"value 7"
        assert first.get(b"0008") == b"value 8"  # the other's close has not closed it
        LmdbReader(tmp_path / "db").get(b"0001")  # never closed
    with LmdbWriter(tmp_path / "db") as writer:  # no reader has it open any more
        writer.put(b"new", b"")


def test_readers_of_many_threads_open_a_file_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    shared = LmdbReader(tmp_path / "db")
    barrier = threading.Barrier(12)

    def read(number: int) -> bytes:
        barrier.wait()
        if number % 2:
            return shared.get(b"0007")
        with LmdbReader(tmp_path / "db") as own:
            return own.get(b"0007")

    with ThreadPoolExecutor(12) as pool:
        for _ in range(40):
            assert set(pool.map(read, range(12))) == {b"value 7"}
            shared.close()


def test_writing_what_is_open_and_reading_what_is_written_is_refused(tmp_path: Path) -> None:
    with LmdbReader(fill(tmp_path / "db")) as reader:
        assert len(reader) == 20
        with pytest.raises(DatabaseError, match="this process has open; close it first"):
            LmdbWriter(tmp_path / "db")
    with LmdbWriter(tmp_path / "db"), pytest.raises(DatabaseError, match="this process is writing; close it first"):
        len(LmdbReader(tmp_path / "db"))


def test_a_writer_does_not_write_in_a_forked_process(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db") as writer:
        writer.put(b"a", b"1")
        child = os.fork()
        if not child:
            status = 1
            try:
                writer.commit()
            except DatabaseError as error:
                status = 0 if "opened before a fork" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with LmdbReader(tmp_path / "db") as reader:
        assert reader.get(b"a") == b"1"


def test_a_fork_while_another_thread_opens_a_database_does_not_hang(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    with lmdb_store._lock:  # as if another thread was opening a file
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(0 if LmdbReader(tmp_path / "db").get(b"0001") == b"value 1" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_lmdb_cannot_look_up_is_no_record(tmp_path: Path) -> None:
    with LmdbReader(fill(tmp_path / "db")) as reader:
        for key in (b"", b"k" * (MAX_KEY + 1)):
            assert key not in reader
            with pytest.raises(KeyError, match="no record"):
                reader.get(key)


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_a_writer_does_not_follow_links(tmp_path: Path, name: str) -> None:
    """The library would truncate lock.mdb, and write to data.mdb, wherever a link leads."""
    (tmp_path / "db").mkdir()
    (tmp_path / "mine.txt").write_text("")
    (tmp_path / "db" / name).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(DatabaseError, match=f"{name}: expected a file to write, got a link to .*mine.txt; remove it"):
        LmdbWriter(tmp_path / "db")
    assert (tmp_path / "mine.txt").read_text() == ""


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "HTML page"),
        (b"", "an empty file"),
        (b"PK\x03\x04" * 5000, "meta page"),
        (None, "named pipe"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes | None, named: str) -> None:
    if content is None:
        os.mkfifo(tmp_path / "data.mdb")
    else:
        (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DatabaseError, match=named) as caught:
        len(LmdbReader(tmp_path))
    assert str(tmp_path / "data.mdb") in str(caught.value)
    if content != b"":
        with pytest.raises(DatabaseError, match=named):
            LmdbWriter(tmp_path)


def test_pages_are_verified_once_for_each_state_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(folder: Path, **options: Any) -> int:
        nonlocal calls
        calls += 1
        return check_pages(folder, **options)

    monkeypatch.setattr(lmdb_store, "check_pages", counted)
    fill(tmp_path / "db")
    for _ in range(3):
        with LmdbReader(tmp_path / "db") as reader:
            assert len(reader) == 20
    assert calls == 1
    fill(tmp_path / "db", 30)  # one more, by the writer
    with LmdbReader(tmp_path / "db") as reader:
        assert len(reader) == 30
    assert calls == 3


def test_pickling_drops_the_handle(tmp_path: Path) -> None:
    reader = LmdbReader(fill(tmp_path / "db"))
    len(reader)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy._environment is None
    reader.close()
    assert copy.get(b"0007") == b"value 7"
    copy.close()


def read_in_child(reader: LmdbReader, results: Any) -> None:
    results.put((os.getpid(), reader.get(b"0007"), len(list(reader.items()))))
    reader.close()
    results.put(len(reader))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("opened", [False, True])
def test_every_process_opens_its_own(tmp_path: Path, method: str, opened: bool) -> None:
    reader = LmdbReader(fill(tmp_path / "db"))
    if opened:
        assert len(reader) == 20
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=read_in_child, args=(reader, results))
    child.start()
    process, value, count = results.get(timeout=30)
    assert process != os.getpid()
    assert (value, count, results.get(timeout=30)) == (b"value 7", 20, 20)
    child.join()
    assert child.exitcode == 0
    assert reader.get(b"0019") == b"value 19"  # the parent's own is as it was
    reader.close()


def test_a_commit_is_made_when_enough_bytes_wait(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db", transaction=1000, transaction_bytes=100) as writer:
        writer.put(b"a", bytes(60))
        assert len(writer) == 0
        writer.put(b"b", bytes(60))
        assert len(writer) == 2
        writer.put(b"c", bytes(60))
        assert len(writer) == 2


def test_what_is_begun(tmp_path: Path) -> None:
    assert not is_begun(tmp_path / "none")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "data.mdb").touch()  # by a writer that was killed at once
    assert not is_begun(tmp_path / "killed")
    with LmdbWriter(tmp_path / "killed") as writer:
        writer.put(b"a", b"1")
        writer.commit()
        assert is_begun(tmp_path / "killed")
    with LmdbReader(tmp_path / "killed") as reader:
        assert list(reader.items()) == [(b"a", b"1")]
