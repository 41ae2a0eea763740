"""engine=ray: tasks on the nodes of a Ray cluster. One Ray task per shard calls the same function as task=k."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detpipe.engines.engine import THREADS, Engine, Observer, TaskCall, TaskError, cores
from detpipe.engines.worker import run_task
from detpipe.storage.interrupt import Interrupted, StopRequest, stop_on_signal
from detpipe.storage.manifest import package_version

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.2"
"""The address of a local cluster. Ray takes an address that others reach for 127.0.0.1, and has no password."""
STORE = 100 * 2**20
"""Bytes of a local cluster's object store. Tasks read and write files; the store holds only their events."""
MARKER_WAIT = 10.0
"""Seconds to wait for the marker: a network file system may show a new file later."""
ANSWER_WAIT = 5.0
"""Seconds to wait for an answer at the address."""
STOP_WAIT = 30.0
"""Seconds after a signal in which the tasks can end their present image. Then they are killed."""
_TICK = 0.2
_NODES_TICK = 2.0
"""Seconds between two looks at the signals, and at the nodes."""


@dataclass(kw_only=True)
class RayEngine(Engine):
    """Run the tasks on a Ray cluster whose nodes share the run folder and the data set."""

    address: str | None = "auto"
    """HOST:PORT of the cluster's head node; auto: the cluster that runs on this machine, or of RAY_ADDRESS; null: start
    a local cluster for this command."""
    cpus_per_task: int = 1
    """Cores of a task."""
    gpus_per_task: float = 0.0
    """GPUs of a task; 0.5: two tasks share one."""
    retries: int = 2
    """How often a task is run again whose process or node was lost."""
    strict: bool = False
    """Refuse nodes with other versions of detpipe, torch or numpy than here. Otherwise, they get a warning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address not in (None, "auto"):
            _host_and_port(self.address)
        if self.cpus_per_task < 1:
            raise ValueError(f"engine.cpus_per_task: expected at least 1, got {self.cpus_per_task}")
        if not 0 <= self.gpus_per_task < 1000:
            raise ValueError(f"engine.gpus_per_task: expected 0 to 999, got {self.gpus_per_task}")
        if self.gpus_per_task > 1 and self.gpus_per_task != int(self.gpus_per_task):
            raise ValueError(f"engine.gpus_per_task: expected a whole number above 1, got {self.gpus_per_task}")
        if self.retries < 0:
            raise ValueError(f"engine.retries: expected at least 0, got {self.retries}")

    def run(self, call: TaskCall, tasks: Sequence[int], observer: Observer) -> None:
        """See `Engine.run`. In a process that is already connected to a cluster, uses that one.

        Raises TaskError if Ray is not installed, or no cluster answers.
        """
        if not tasks:
            return
        ray = _ray()
        with _connected(ray, self.address):
            with stop_on_signal() as stop:
                _Run(ray, self, call, observer).run(tasks, stop)
            if stop:
                raise Interrupted("finished tasks are kept; run the same command again, it continues from there")


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"engine.address: expected HOST:PORT of the head node (the port is 6379 by default), auto or null, got "
            f"{address}; this command must run on a machine of the cluster"
        )
    return host.strip("[]"), int(port)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise TaskError(
            "engine=ray: expected the package ray, got none; pip install 'detpipe[ray]', or use engine=local"
        ) from error


def versions() -> dict[str, str]:
    """The versions here of the packages that change results."""
    found = {"detpipe": package_version()}
    for name in ("torch", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A block in which this process is connected to a cluster. Raises TaskError if none answers."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise, Ray sends statistics to its makers
        options.update(
            address="local",
            num_cpus=cores(),
            include_dashboard=False,
            object_store_memory=STORE,
            _node_ip_address=LOOPBACK,
        )
    elif address != "auto":
        _check_answer(address)
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except Exception as error:  # many types, by version and by what is wrong
        ray.shutdown()
        remedy = "start one with `ray start --head`, or give engine.address=HOST:PORT, or null for one on this machine"
        what = "none" if isinstance(error, ConnectionError) else f"{type(error).__name__}: {_first_line(error)}"
        raise TaskError(f"engine.address={_shown(address)}: expected a Ray cluster, got {what}; {remedy}") from error
    finally:
        with contextlib.suppress(ValueError, TypeError):  # not the main thread; a handler that is not Python's
            signal.signal(signal.SIGTERM, on_term)  # Ray sets its own, which ends the process at once
    try:
        with _quiet(ray):
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """A block in which Ray prints no messages about lost workers to stdout, where the results are.

    Ray has no public setting for these. In a version without this variable, they are shown.
    """
    module = ray._private.worker
    before = getattr(module, "_worker_logs_enabled", True)
    module._worker_logs_enabled = False
    try:
        yield
    finally:
        module._worker_logs_enabled = before


def _shown(address: str | None) -> str:
    return "null" if address is None else address


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _check_answer(address: str) -> None:
    """Raise TaskError if nothing listens at an address. Ray itself tries for a minute, or ends the process."""
    try:
        socket.create_connection(_host_and_port(address), timeout=ANSWER_WAIT).close()
    except OSError as error:
        raise TaskError(
            f"engine.address={address}: expected the head node of a Ray cluster, got no answer ({error}); start it "
            "there with `ray start --head`, or give another address"
        ) from error


class Mailbox:
    """A Ray actor that holds the events of the tasks until the driver takes them."""

    def __init__(self) -> None:
        self._events: list[tuple[int, Mapping[str, Any]]] = []

    def put(self, task: int, event: Mapping[str, Any]) -> None:
        """Add an event of a task."""
        self._events.append((task, event))

    def take(self) -> list[tuple[int, Mapping[str, Any]]]:
        """All events since the last call, in the order in which they came."""
        events, self._events = self._events, []
        return events


def run_here(message: str, mailbox: Any) -> dict[str, Any]:
    """Run a task in this Ray worker; returns its last event, as `detpipe.engines.worker.run_task` does.

    message: JSON of {"call", "task", "driver"}; driver: {"folder", "versions", "strict", "threads", "wait"}.
    """
    order = json.loads(message)
    task, driver = order["task"], order["driver"]
    os.environ[THREADS] = driver["threads"]  # before torch is imported, which reads it once
    ray = _ray()
    node = _node_name(ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id())
    last: list[Any] = []

    def send(event: Mapping[str, Any]) -> None:
        last[:] = [mailbox.put.remote(task, event)]

    send({"event": "started", "where": f"process {os.getpid()} on node {node}"})
    logging.captureWarnings(True)
    call = TaskCall(**order["call"])
    fault = _folder_fault(call, driver["folder"], driver["wait"])
    if fault is None:
        different = _different(versions(), driver["versions"])
        if different and driver["strict"]:
            fault = f"{different}; install the same versions there, or give engine.strict=false"
        elif different:
            text = f"node {node}: {different}; results may differ in their last bits"
            send({"event": "log", "level": logging.WARNING, "text": text})
    if fault is not None:
        end: dict[str, Any] = {"event": "failed", "text": f"node {node}: {fault}"}
    else:
        os.chdir(driver["folder"])  # paths of the settings may be relative to it
        end = run_task(call, task, send)
    ray.get(last)  # no event must come after the end
    return end


def _node_name(address: str, number: str) -> str:
    return f"{address} ({number[:6]})"


def _folder_fault(call: TaskCall, folder: str, wait: float) -> str | None:
    """Why this node can't work in the driver's folders, or None."""
    if call.marker is not None:
        path, text = Path(call.marker[0]), call.marker[1]
        until = time.monotonic() + wait
        while _text_of(path) != text:
            if time.monotonic() > until:
                got = "none" if not path.parent.is_dir() else "another one"
                return (
                    f"expected the run folder of the driver, with {path}, got {got}; all nodes must see it at the same "
                    "path, on a shared file system"
                )
            time.sleep(0.2)
    if not Path(folder).is_dir():
        return (
            f"expected the folder {folder}, where the command was started, got none; start it in a folder of all nodes"
        )
    return None


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _different(here: Mapping[str, str], drivers: Mapping[str, str]) -> str:
    """The versions that differ, as text; empty: none."""
    return ", ".join(
        f"expected {name} {drivers[name]} as in the driver, got {version}"
        for name, version in here.items()
        if version != drivers[name]
    )


class _Run:
    """One call of `RayEngine.run`."""

    def __init__(self, ray: Any, engine: RayEngine, call: TaskCall, observer: Observer) -> None:
        self._ray, self._engine, self._observer = ray, engine, observer
        self._call = call.with_cores(engine.cpus_per_task)
        self._driver = {
            "folder": str(Path.cwd()),
            "versions": versions(),
            "strict": engine.strict,
            "wait": MARKER_WAIT,
            "threads": os.environ.get(THREADS, str(engine.cpus_per_task)),
        }
        resources = {"num_cpus": engine.cpus_per_task, "num_gpus": engine.gpus_per_task}
        # Repeats are counted here, so that the user sees them.
        self._remote = ray.remote(run_here).options(max_retries=0, **resources)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._running: dict[Any, int] = {}
        self._ends: dict[int, int] = {}
        self._nodes: list[str] | None = None
        self._nodes_seen = 0.0

    def run(self, tasks: Sequence[int], stop: StopRequest) -> None:
        self._look_at_nodes()
        for task in tasks:
            self._submit(task)
        stopped = None
        while self._running:
            if stop and stopped is None:
                stopped = time.monotonic()
                self._cancel(force=False)
            if stopped is not None and time.monotonic() - stopped > STOP_WAIT:
                stopped = float("inf")
                self._cancel(force=True)
            ready, _ = self._ray.wait(list(self._running), timeout=_TICK)
            self._take_events()
            for reference in ready:
                self._settle(reference, stopping=bool(stop))
            if time.monotonic() - self._nodes_seen > _NODES_TICK:
                self._look_at_nodes()

    def _submit(self, task: int) -> None:
        message = json.dumps({"call": asdict(self._call), "task": task, "driver": self._driver})
        self._running[self._remote.remote(message, self._mailbox)] = task

    def _cancel(self, *, force: bool) -> None:
        """End the tasks: by the signal that Ctrl-C sends, after which a command ends its present image, or at once."""
        for reference in self._running:
            self._ray.cancel(reference, force=force)

    def _take_events(self) -> None:
        for task, event in self._ray.get(self._mailbox.take.remote()):
            if event["event"] == "started":
                self._observer.started(task, event["where"])
            else:
                self._observer.event(task, event)

    def _settle(self, reference: Any, *, stopping: bool) -> None:
        task = self._running.pop(reference)
        exceptions = self._ray.exceptions
        try:
            end = self._ray.get(reference)
        except exceptions.RayTaskError as error:  # the worker could not begin: its detpipe is missing or another
            end = {"event": "failed", "text": f"its Ray worker raised {_cause(error)}"}
        except exceptions.RayError as error:
            if not stopping:
                self._lost(task, _reason(error))
            return
        if end["event"] == "finished":
            self._observer.finished(task)
        elif not stopping:
            self._observer.failed(task, end["text"])

    def _lost(self, task: int, reason: str) -> None:
        self._look_at_nodes()
        self._ends[task] = self._ends.get(task, 0) + 1
        if self._ends[task] > self._engine.retries:
            self._observer.failed(task, reason)
        else:
            self._observer.repeated(task, reason)
            self._submit(task)

    def _look_at_nodes(self) -> None:
        """Tell the observer which nodes can run a task. Raises TaskError if a local cluster never can."""
        self._nodes_seen = time.monotonic()
        needs = {"CPU": self._engine.cpus_per_task, "GPU": self._engine.gpus_per_task}
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        usable = [
            node for node in alive if all(node["Resources"].get(name, 0) >= count for name, count in needs.items())
        ]
        names = sorted(_node_name(node["NodeManagerAddress"], node["NodeID"]) for node in usable)
        if names == self._nodes:
            return
        self._nodes = names
        self._observer.nodes(names)
        if not usable:
            wanted = f"engine.cpus_per_task={needs['CPU']}, engine.gpus_per_task={needs['GPU']:g}"
            text = f"{wanted}: expected a node with as many, got none among {len(alive)} nodes"
            if self._engine.address is None:
                raise TaskError(f"{text}; give fewer")
            logger.warning("%s; the tasks wait until one joins", text)


def _cause(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {_first_line(cause)}"


def _reason(error: BaseException) -> str:
    """Why a task was lost."""
    reasons = {
        "NodeDiedError": "its node was lost",
        "WorkerCrashedError": "its process was killed",
        "OutOfMemoryError": "the memory of its node ran out, and Ray killed its process",
    }
    name = type(error).__name__
    return reasons.get(name, f"{name}: {_first_line(error)}")
