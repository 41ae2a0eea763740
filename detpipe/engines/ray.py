"""engine=ray: tasks on the nodes of a Ray cluster. One Ray task per shard calls the same function as task=k."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from detpipe.engines.engine import Engine, Observer, TaskCall, TaskError
from detpipe.engines.ray_cluster import (
    Connection,
    Driver,
    cause_of,
    connected,
    first_line,
    host_and_port,
    node_name,
    ray_package,
    this_node,
    usable_nodes,
)
from detpipe.engines.worker import run_task
from detpipe.storage.interrupt import Interrupted, StopRequest, stop_on_signal

logger = logging.getLogger(__name__)

STOP_WAIT = 30.0
"""Seconds after a signal in which the tasks can end their present image. Then they are killed."""
HELD_WAIT = 120.0
"""Seconds in which a task is tried again whose shard another process holds: a lost node may still run the old task, and
a network file system releases the locks of a lost machine after a minute or more."""
EVENTS_WAIT = 5.0
"""Seconds to wait for the events of the tasks."""
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
    """How often work is begun again whose process or node was lost, and, on another node, a task that met an error of
    the operating system, such as a full disk."""
    strict: bool = False
    """Refuse nodes with other versions of detpipe, torch or numpy than here. Otherwise, they get a warning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address not in (None, "auto"):
            host_and_port(self.address)
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

        Raises TaskError if Ray is not installed, no cluster answers, or the connection to it is lost.
        """
        if not tasks:
            return
        with self.cluster() as ray:
            with stop_on_signal() as stop:
                _Run(ray, self, call, observer).run(tasks, stop)
            if stop:
                raise Interrupted("finished tasks are kept; run the same command again, it continues from there")

    @contextlib.contextmanager
    def cluster(self) -> Iterator[Any]:
        """A block in which this process is connected to the cluster; gives the package ray. Raises as `run`."""
        ray = ray_package()
        with connected(ray, self.address):
            yield ray

    def driver(self, marker: tuple[str, str] | None, source: str | None = None) -> Driver:
        """What the nodes must have in common with this process. See `Driver`."""
        return Driver.here(strict=self.strict, cpus=self.cpus_per_task, marker=marker, source=source)

    def nodes(self, ray: Any) -> list[Mapping[str, Any]]:
        """The nodes that can run a task, as `ray.nodes` describes them."""
        return usable_nodes(ray, {"CPU": self.cpus_per_task, "GPU": self.gpus_per_task})

    def warn_of_no_node(self) -> None:
        """Say that no node can run a task. Raises TaskError for a local cluster, which will never have one."""
        text = (
            f"engine.cpus_per_task={self.cpus_per_task}, engine.gpus_per_task={self.gpus_per_task:g}: expected a node "
            "with as many, got none in the cluster"
        )
        if self.address is None:
            raise TaskError(f"{text}; give fewer")
        logger.warning("%s; the tasks wait until one joins", text)


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

    message: JSON of {"call", "task", "driver"}; driver: the fields of `Driver`.
    """
    order = json.loads(message)
    task, driver = order["task"], Driver(**order["driver"])
    last: list[Any] = []

    def send(event: Mapping[str, Any]) -> None:
        last[:] = [mailbox.put.remote(task, event)]

    send({"event": "started", "where": f"process {os.getpid()} on node {this_node()}"})
    logging.captureWarnings(True)
    try:
        warning = driver.enter()
    except TaskError as error:
        end: dict[str, Any] = {"event": "failed", "text": str(error)}
    else:
        if warning is not None:
            send({"event": "log", "level": logging.WARNING, "text": warning})
        end = run_task(TaskCall(**order["call"]), task, send)
        if end["event"] == "failed":
            end["text"] = f"node {this_node()}: {end['text']}"
            end["node"] = ray_package().get_runtime_context().get_node_id()
    ray = ray_package()
    with contextlib.suppress(ray.exceptions.RayError):  # the events are for the terminal: the shard needs none
        ray.get(last)  # no event must come after the end
    return end


class _Run:
    """One call of `RayEngine.run`."""

    def __init__(self, ray: Any, engine: RayEngine, call: TaskCall, observer: Observer) -> None:
        self._ray, self._engine, self._observer = ray, engine, observer
        self._call = call.with_cores(engine.cpus_per_task)
        self._driver = engine.driver(call.marker)
        self._remote = ray.remote(run_here)
        # Repeats are counted here, so that the user sees them.
        self._options = {"num_cpus": engine.cpus_per_task, "num_gpus": engine.gpus_per_task, "max_retries": 0}
        self._on_node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = self._on_node(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
        self._connection = Connection(ray)
        self._running: dict[Any, int] = {}
        self._faulty: set[str] = set()
        self._ends: dict[int, int] = {}
        self._held_until: dict[int, float] = {}
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
            if self._connection.holds() and time.monotonic() - self._nodes_seen > _NODES_TICK:
                self._look_at_nodes()

    def _submit(self, task: int, node: str | None = None) -> None:
        """Let a task run as soon as there is room for it. node: where; another one if this one is lost before."""
        message = json.dumps({"call": asdict(self._call), "task": task, "driver": asdict(self._driver)})
        place = {} if node is None else {"scheduling_strategy": self._on_node(node, soft=True)}
        remote = self._remote.options(**self._options, **place)
        self._running[remote.remote(message, self._mailbox)] = task

    def _cancel(self, *, force: bool) -> None:
        """End the tasks: by the signal that Ctrl-C sends, after which a command ends its present image, or at once."""
        for reference in self._running:
            self._ray.cancel(reference, force=force)

    def _take_events(self) -> None:
        try:
            events = self._ray.get(self._mailbox.take.remote(), timeout=EVENTS_WAIT)
        except self._ray.exceptions.RayError as error:  # its process was killed, and Ray starts another
            logger.debug("events of tasks are lost: %s", first_line(error))
            return
        for task, event in events:
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
            remedy = "install the same version of detpipe on all nodes"
            end = {"event": "failed", "text": f"{_place(error)}its Ray worker raised {cause_of(error)}; {remedy}"}
        except exceptions.RayError as error:
            if not stopping:
                self._lost(task, _reason(error))
            return
        if end["event"] == "finished":
            self._observer.finished(task)
        elif stopping:
            pass
        elif end.get("held") and time.monotonic() < self._held_until.setdefault(task, time.monotonic() + HELD_WAIT):
            self._observer.repeated(task, end["text"])
            self._submit(task)
        elif end.get("system") and (node := self._other_node(task, end["node"])) is not None:
            self._repeat(task, end["text"], node)
        else:
            self._observer.failed(task, end["text"])

    def _other_node(self, task: int, node: str) -> str | None:
        """A node for a task that met an error of the system on this node; None without one where no task has met such.

        Ray itself would choose the same node again: one whose tasks fail at once has room. It still gets first tries.
        """
        self._faulty.add(node)
        others = sorted({one["NodeID"] for one in self._engine.nodes(self._ray)} - self._faulty)
        return others[task % len(others)] if others else None

    def _lost(self, task: int, reason: str) -> None:
        if self._connection.holds():
            self._look_at_nodes()
        self._repeat(task, reason)

    def _repeat(self, task: int, reason: str, node: str | None = None) -> None:
        """Run a task again, if it may be. node: as for `_submit`."""
        self._ends[task] = self._ends.get(task, 0) + 1
        if self._ends[task] > self._engine.retries:
            self._observer.failed(task, reason)
        else:
            self._observer.repeated(task, reason)
            self._submit(task, node)

    def _look_at_nodes(self) -> None:
        """Tell the observer which nodes can run a task. Raises TaskError if a local cluster never can."""
        self._nodes_seen = time.monotonic()
        usable = self._engine.nodes(self._ray)
        names = sorted(node_name(node["NodeManagerAddress"], node["NodeID"]) for node in usable)
        if names == self._nodes:
            return
        self._nodes = names
        self._observer.nodes(names)
        if not usable:
            self._engine.warn_of_no_node()


def _place(error: BaseException) -> str:
    """The node of an error, for the start of a message. Ray has its address only in the text."""
    found = re.search(r"\bip=([^\s,)]+)", str(error))
    return f"node {found[1]}: " if found else ""


def _reason(error: BaseException) -> str:
    """Why a task was lost."""
    reasons = {
        "NodeDiedError": "its node was lost",
        "WorkerCrashedError": "its process was killed",
        "OutOfMemoryError": "the memory of its node ran out, and Ray killed its process",
    }
    name = type(error).__name__
    return reasons.get(name, f"{name}: {first_line(error)}")
