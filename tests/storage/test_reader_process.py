"""The process that reads files of other people: results, errors, limits, and where it may be started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detpipe
from detpipe.storage import reader_process
from detpipe.storage.input_file import InputFileError
from detpipe.storage.reader_process import Arrays, ReaderProcess, UnreadableFileError, read_in_process

# Readers, called in the process.


class OwnError(ValueError):
    pass


def numbers(path: Path) -> tuple[Any, Arrays]:
    arrays = {
        "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
        "none": np.zeros((0, 4), np.int64),
        "one": np.array(True),
        "turned": np.arange(6).reshape(2, 3).T,
        "big": np.zeros(1 << 20),
    }
    return {"text": path.read_text(), "list": [1, None, 2.5]}, arrays


def nothing(path: Path) -> tuple[Any, Arrays]:
    return os.getpid(), {}


def own_error(path: Path) -> tuple[Any, Arrays]:
    raise OwnError(f"{path}: a fault\nof \x1b[1mtwo lines")


def other_error(path: Path) -> tuple[Any, Arrays]:
    raise ZeroDivisionError("x" * 10_000)


def much_memory(path: Path) -> tuple[Any, Arrays]:
    return None, {"": np.ones(1 << 26)}


def much_sent(path: Path) -> tuple[Any, Arrays]:
    return None, {str(i): np.broadcast_to(np.float64(1), (1 << 20,)) for i in range(100)}


def long_text(path: Path) -> tuple[Any, Arrays]:
    return "x" * (60 << 20), {}


def much_time(path: Path) -> tuple[Any, Arrays]:
    while True:
        pass


def much_waiting(path: Path) -> tuple[Any, Arrays]:
    time.sleep(1_000)
    return None, {}


def crash(path: Path) -> tuple[Any, Arrays]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return None, {}


def leave(path: Path) -> tuple[Any, Arrays]:
    os._exit(3)


def write(path: Path) -> tuple[Any, Arrays]:
    path.with_name("new").write_text("text")
    return None, {}


def talk(path: Path) -> tuple[Any, Arrays]:
    sys.stdout.write("hello")
    sys.stdout.flush()
    os.write(1, b"from a library in C")
    return "said", {}


def objects(path: Path) -> tuple[Any, Arrays]:
    return None, {"": np.array([object()])}


@pytest.fixture(scope="module")
def process() -> Iterator[ReaderProcess]:
    with ReaderProcess() as one:
        yield one


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "some.bin").write_text("content")
    return tmp_path / "some.bin"


def test_json_and_arrays_come_back(process: ReaderProcess, file: Path) -> None:
    value, arrays = process.read(numbers, file, "numbers")
    assert value == {"text": "content", "list": [1, None, 2.5]}
    want = numbers(file)[1]
    assert list(arrays) == list(want)
    for name, array in want.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
    arrays["floats"] += 1  # the caller's own


def test_one_process_reads_many_files(process: ReaderProcess, file: Path) -> None:
    first, _ = process.read(nothing, file, "numbers")
    assert process.read(nothing, file, "numbers")[0] == first != os.getpid()


def test_errors(process: ReaderProcess, file: Path) -> None:
    with pytest.raises(OwnError, match=r"some\.bin: a fault of \\x1b\[1mtwo lines$"):
        process.read(own_error, file, "numbers", errors=[OwnError])
    with pytest.raises(
        UnreadableFileError, match=r"some\.bin: expected numbers, got .*ZeroDivisionError: x+ …"
    ) as raised:
        process.read(other_error, file, "numbers", errors=[OwnError])
    assert raised.value.outcome == "error"
    assert len(str(raised.value)) < 1_000
    with pytest.raises(UnreadableFileError, match="TypeError"):
        process.read(objects, file, "numbers")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
@pytest.mark.parametrize("function", [much_memory, much_sent, long_text])
def test_memory_is_limited(process: ReaderProcess, file: Path, function: reader_process.Reader) -> None:
    with pytest.raises(UnreadableFileError, match=r"more than 0\.05 GB of memory.*DETPIPE_INPUT_LIMITS=10") as raised:
        process.read(function, file, "numbers", memory=50_000_000)
    assert raised.value.outcome == "memory"
    assert process.read(nothing, file, "numbers")[1] == {}


def test_time_is_limited(process: ReaderProcess, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableFileError, match=r"longer than 0\.1 s.*DETPIPE_INPUT_LIMITS=10") as raised:
        process.read(much_time, file, "numbers", seconds=0.1)
    assert raised.value.outcome == "time"
    process.read(nothing, file, "numbers")
    monkeypatch.setattr(reader_process, "_WALL", (1, 0.2))
    with pytest.raises(UnreadableFileError, match=r"longer than 0\.1 s"):
        process.read(much_waiting, file, "numbers", seconds=0.1)


def test_the_limits_of_one_file_are_not_those_of_all(process: ReaderProcess, file: Path) -> None:
    for _ in range(3):
        process.read(numbers, file, "numbers", memory=100 << 20, seconds=1)
    process.read(much_memory, file, "numbers")


@pytest.mark.parametrize(("function", "name"), [(crash, "SIGSEGV"), (leave, "exit status 3")])
def test_a_crash_ends_the_reading_only(process: ReaderProcess, file: Path, function: Any, name: str) -> None:
    with pytest.raises(UnreadableFileError, match=f"crashed \\({name}\\)") as raised:
        process.read(function, file, "numbers")
    assert raised.value.outcome == "signal"
    process.read(nothing, file, "numbers")


def test_it_writes_no_files_and_its_output_is_dropped(process: ReaderProcess, file: Path) -> None:
    with pytest.raises(UnreadableFileError, match="OSError"):
        process.read(write, file, "numbers")
    assert (file.with_name("new")).stat().st_size == 0
    assert process.read(talk, file, "numbers")[0] == "said"


def test_other_than_regular_files_are_refused_before(process: ReaderProcess, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputFileError, match="named pipe"):
        process.read(nothing, tmp_path / "pipe", "numbers")
    with pytest.raises(FileNotFoundError):
        process.read(nothing, tmp_path / "missing", "numbers")


def test_a_relative_path_is_that_of_the_caller(
    process: ReaderProcess, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.read(nothing, file, "numbers")
    monkeypatch.chdir(file.parent)
    assert process.read(numbers, Path("some.bin"), "numbers")[0]["text"] == "content"


def test_the_factor_of_the_limits(process: ReaderProcess, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(reader_process.FACTOR, "100")
    process.read(much_memory, file, "numbers", memory=20_000_000)
    for wrong in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv(reader_process.FACTOR, wrong)
        with pytest.raises(ValueError, match="DETPIPE_INPUT_LIMITS: expected a number above 0"):
            process.read(nothing, file, "numbers")


def test_threads_share_it(file: Path) -> None:
    with ReaderProcess() as one, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: one.read(numbers, file, "numbers")[1]["floats"].sum(), range(50)))
    assert found == [15] * 50


def test_an_idle_process_ends(file: Path) -> None:
    one = ReaderProcess(idle_seconds=0.05)
    pid, _ = one.read(nothing, file, "numbers")
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    assert one.read(nothing, file, "numbers")[0] != pid
    one.close()


def _in_worker(path: Path) -> Any:
    return read_in_process(nothing, path, "numbers")[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_start_their_own(file: Path, method: str) -> None:
    first = _in_worker(file)
    with multiprocessing.get_context(method).Pool(1) as pool:  # daemons, which may have no children of multiprocessing
        assert pool.apply(_in_worker, (file,)) != first
    assert _in_worker(file) == first


SCRIPT = """
import signal, sys, threading
from pathlib import Path
from detpipe.storage.npy_file import read_npy
print(read_npy(Path(sys.argv[1]), "numbers").sum())  # without a main guard
"""


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_from_a_script_without_a_main_guard(tmp_path: Path, how: str) -> None:
    np.save(tmp_path / "a.npy", np.ones(5))
    (tmp_path / "script.py").write_text(SCRIPT)
    package = str(Path(detpipe.__file__).parents[1])
    command, text = (["script.py"], None) if how == "file" else (["-"], SCRIPT)
    done = subprocess.run(
        [sys.executable, *command, "a.npy"],
        input=text,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("5.0\n", "", 0)


def test_nothing_of_the_answer_is_unpickled() -> None:
    source = Path(reader_process.__file__).read_text()
    assert "pickle" not in source.replace("Pickles", "").replace("unpickled", "")


def test_its_end_is_awaited_in_any_thread(file: Path) -> None:
    one, threads = ReaderProcess(), []
    for _ in range(3):
        one.read(nothing, file, "numbers")
        threads.append(threading.Thread(target=one.close))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert one._process is None


def test_one_that_was_killed_while_idle_is_replaced(file: Path) -> None:
    with ReaderProcess() as one:
        pid, _ = one.read(nothing, file, "numbers")
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert one.read(nothing, file, "numbers")[0] != pid


def test_an_interpreter_that_does_not_start_is_not_the_files_fault(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_process, "_START", "raise SystemExit(5)")
    with ReaderProcess() as one, pytest.raises(OSError, match="exit status 5"):
        one.read(nothing, file, "numbers")
