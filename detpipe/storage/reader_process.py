"""Reads files that other people made in a process of their own, within limits of memory and time.

Pickles, .mat, .pth and .npy files are read by libraries that a hostile file of a few bytes can make allocate gigabytes,
run for ever, or crash. Here only the process that reads the file ends, and the caller gets one sentence. The process
sends back JSON and the bytes of arrays of numbers. Nothing that it sends is unpickled.

The process is a new interpreter, not a fork, so it may be started from threads, notebooks, scripts and workers, also
when torch runs. It takes 0.1 s to start with numpy, 0.3 s with scipy and 1.5 s with torch.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from detpipe.storage.input_file import InputFileError, check_input

logger = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]
Reader = Callable[..., tuple[Any, Arrays]]
"""Reads one file, given by its path, in the process: to a value that JSON holds, and arrays of numbers by name."""

FACTOR = "DETPIPE_INPUT_LIMITS"
"""The environment variable that multiplies the limits."""
BASE_MEMORY = 1 << 30
"""Bytes of memory for the smallest file, beyond what the interpreter and its libraries take."""
BASE_SECONDS = 10.0
"""Seconds of processor time for the smallest file."""
SECONDS_PER_BYTE = 1e-6
_WALL = (4, 60)
"""A process that waits without computing is ended after 4 times its seconds of processor time, and 60 more."""
_IDLE_SECONDS = 20
_KINDS = "biufc"
_LONGEST_MESSAGE = 500


class UnreadableFileError(InputFileError):
    """The process that read a file did not get through.

    outcome: "error" for an exception that the reader does not declare, "memory" or "time" for a limit, "signal" for a
    crash.
    """

    def __init__(self, message: str, outcome: Literal["error", "memory", "time", "signal"]) -> None:
        super().__init__(message)
        self.outcome = outcome


class ReaderProcess:
    """A process that reads files, one at a time. It starts with the first file and again after a file ended it.

    Use it as a context manager, or call `close`. Threads may share it, a forked process may not.
    idle_seconds: it ends by itself when no file came for as long.
    """

    def __init__(self, idle_seconds: float | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._idle_seconds = idle_seconds
        self._idle: threading.Timer | None = None

    def __enter__(self) -> ReaderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process. The next file starts a new one."""
        with self._lock:
            self._end()

    def _start_idle_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._idle_seconds is not None:
            self._idle = threading.Timer(self._idle_seconds, self.close)
            self._idle.daemon = True
            self._idle.start()

    def read(
        self,
        function: Reader,
        path: Path,
        expected: str,
        *,
        errors: Iterable[type[Exception]] = (),
        expansion: float = 8,
        memory: int | None = None,
        seconds: float | None = None,
        arguments: Sequence[Any] = (),
    ) -> tuple[Any, Arrays]:
        """Call function(path, *arguments) in the process and return its result, the arrays as copies.

        function: of a module's top level. arguments: values that JSON holds. errors: the exceptions of `function` that
        are raised here as they are; they take one string. expansion: bytes of memory per byte of the file, beyond
        BASE_MEMORY. memory, seconds: other limits, in bytes and seconds of processor time. Both kinds are multiplied by
        the environment variable FACTOR.
        Where the system has no such limits (Windows, macOS for memory), only the time on the clock is limited.

        Raises the errors of `check_input`, `errors`, and UnreadableFileError for every other end.
        """
        check_input(path, expected)
        size, factor = path.stat().st_size, _factor()
        memory = int(factor * (BASE_MEMORY + expansion * size if memory is None else memory))
        seconds = factor * (BASE_SECONDS + SECONDS_PER_BYTE * size if seconds is None else seconds)
        request = {
            "function": [function.__module__, function.__qualname__],
            "path": os.fspath(path),
            "folder": None if path.is_absolute() else str(Path.cwd()),
            "memory": memory,
            "seconds": seconds,
            "arguments": list(arguments),
        }
        remedy = f"if you trust it, set the environment variable {FACTOR}={factor * 10:g} to raise the limits"
        with self._lock:
            answer = self._ask(request, memory, seconds)
            if answer[0] == "memory":
                self._end()  # what it has allocated and freed would not count next time
            self._start_idle_timer()
        match answer:
            case "memory", _:
                fault = (
                    f"one that needs more than {memory / 1e9:.2g} GB of memory to be read and may be damaged; {remedy}"
                )
                raise UnreadableFileError(f"{path}: expected {expected}, got {fault}", "memory")
            case "time", _:
                fault = f"one that takes longer than {seconds:.3g} s to be read and may be damaged; {remedy}"
                raise UnreadableFileError(f"{path}: expected {expected}, got {fault}", "time")
            case "signal", name:
                fault = f"a damaged one, on which its reader crashed ({name}); copy or download it again"
                raise UnreadableFileError(f"{path}: expected {expected}, got {fault}", "signal")
            case "error", (kind, message):
                known = next((error for error in errors if error.__name__ == kind), None)
                if known is not None:
                    raise known(message)
                fault = f"one that can't be read ({kind}: {message}); copy or download it again"
                raise UnreadableFileError(f"{path}: expected {expected}, got {fault}", "error")
            case _, result:
                return result  # type: ignore[no-any-return]

    def _ask(self, request: Mapping[str, Any], memory: int, seconds: float) -> tuple[str, Any]:
        """What became of one file: ("result", ...), or the kind of fault and what to say of it."""
        if self._process is not None and self._process.poll() is not None:  # killed while it was idle
            self._end()
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()
        factor, more = _WALL

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(factor * seconds + more, kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            return _receive(process.stdout, memory)
        except (EOFError, BrokenPipeError):
            code = self._end()
            if late.is_set() or code == -getattr(signal, "SIGXCPU", 0):
                return "time", None
            return "signal", signal.Signals(-code).name if code < 0 else f"exit status {code}"
        except BaseException:  # Ctrl-C in the middle of an answer
            process.kill()
            self._end()
            raise
        finally:
            timer.cancel()

    def _end(self) -> int:
        """End the process and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None
        assert process.stdout is not None
        # One that has crashed is ending by itself, and its status says how.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            return process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def read_in_process(
    function: Reader,
    path: Path,
    expected: str,
    *,
    errors: Iterable[type[Exception]] = (),
    expansion: float = 8,
    arguments: Sequence[Any] = (),
) -> tuple[Any, Arrays]:
    """Read a file in a process that waits some seconds for the next file. See `ReaderProcess.read`."""
    begun = time.perf_counter()
    content = _shared(os.getpid()).read(
        function, path, expected, errors=errors, expansion=expansion, arguments=arguments
    )
    logger.debug("%s: read in another process in %.2f s", path, time.perf_counter() - begun)
    return content


@functools.cache
def _shared(pid: int) -> ReaderProcess:
    """The process that belongs to the process `pid`. A forked one starts its own."""
    process = ReaderProcess(_IDLE_SECONDS)
    atexit.register(lambda: process.close() if os.getpid() == pid else None)
    return process


def _factor() -> float:
    text = os.environ.get(FACTOR, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor <= 1e6:
        raise ValueError(f"{FACTOR}: expected a number above 0 and up to 1e6, got {text!r}; correct or unset it")
    return factor


_READY = b"ready"
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from detpipe.storage.reader_process import serve; serve()"
)


def _start() -> subprocess.Popen[bytes]:
    # More threads would reserve address space, and the readers have no work for them.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([part for part in sys.path if isinstance(part, str)]).encode() + b"\n")
    process.stdin.flush()
    if process.stdout.read(len(_READY)) != _READY:
        process.stdin.close()
        process.stdout.close()
        raise OSError(
            f"{sys.executable}: expected Python to start, to read a file in a process of its own; it ended with exit "
            f"status {process.wait()}; check that `python -c 'import detpipe'` works"
        )
    return process


def _receive(stream: IO[bytes], memory: int) -> tuple[str, Any]:
    """The answer to one request. Raises EOFError if the process ended before."""
    length = int.from_bytes(_exactly(stream, 8), "little")
    if length > memory:
        return "memory", None
    answer = json.loads(_exactly(stream, length))
    if answer["outcome"] != "result":
        return answer["outcome"], answer["value"]
    arrays = {}
    for name, text, shape in answer["arrays"]:
        dtype = np.dtype(text)
        memory -= math.prod(shape) * dtype.itemsize
        if dtype.kind not in _KINDS or memory < 0:
            return "memory", None
        array = np.empty(shape, dtype)
        _fill(stream, array)
        arrays[name] = array
    return "result", (answer["value"], arrays)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _fill(stream: IO[bytes], array: npt.NDArray[Any]) -> None:
    rest = array.reshape(-1).view(np.uint8).data
    while len(rest):
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]


# In the process.


def serve() -> None:
    """Answer requests from standard input until it ends. The main function of the process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    # What a library prints must not get into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(_READY)
    answers.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["folder"] is not None:
            os.chdir(request["folder"])
        module, name = request["function"]
        function = getattr(import_module(module), name)
        answer, arrays = _answer(function, request)
        _set_limits(None, None)
        header = json.dumps(answer).encode()
        answers.write(len(header).to_bytes(8, "little") + header)
        for array in arrays:
            answers.write(array.reshape(-1).view(np.uint8).data)
        answers.flush()


def _answer(function: Reader, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    memory: int = request["memory"]
    _set_limits(memory, request["seconds"])
    try:
        value, arrays = function(Path(request["path"]), *request["arguments"])
        if sum(array.nbytes for array in arrays.values()) > memory:
            raise MemoryError
        plain = [np.ascontiguousarray(array) for array in arrays.values()]
        if any(array.dtype.kind not in _KINDS for array in plain):
            raise TypeError(f"{function.__qualname__}: expected arrays of numbers")
        described = [
            (name, array.dtype.str, one.shape) for (name, one), array in zip(arrays.items(), plain, strict=True)
        ]
        return {"outcome": "result", "value": value, "arrays": described}, plain
    except MemoryError:
        return {"outcome": "memory", "value": None}, []
    except Exception as error:  # whatever a library raises for a hostile file is a fault of the file
        return {"outcome": "error", "value": (type(error).__name__, _one_line(error))}, []


def _one_line(error: Exception) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # a message may hold an object from the file
        return "no message"
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} …"


def _set_limits(memory: int | None, seconds: float | None) -> None:
    """Limit the memory and the processor time from here on, in bytes and seconds; None is no limit.

    With limits, there are no core dumps, and no file can be written.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = hard if seconds is None else math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (_lower(end, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if memory is None else 0, hard))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if memory is None:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return
    try:
        # Libraries such as torch reserve gigabytes of address space when they are imported.
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # macOS
        return
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (_lower(limit, hard), hard))


def _lower(limit: int, hard: int) -> int:
    return limit if hard < 0 else min(limit, hard)  # -1 is no limit
