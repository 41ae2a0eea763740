"""A Ray cluster: how the driver connects to it, and what its nodes must have in common with the driver."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.engines.engine import THREADS, TaskError, cores
from detpipe.storage.manifest import package_version
from detpipe.storage.stored_file import exists

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.2"
"""The address of a local cluster. Ray takes an address that others reach for 127.0.0.1, and has no password."""
STORE = 100 * 2**20
"""Bytes of a local cluster's object store. Pixels are not in it: tasks read and write files."""
MARKER_WAIT = 10.0
"""Seconds to wait for the marker: a network file system may show a new file later."""
ANSWER_WAIT = 5.0
"""Seconds to wait for an answer at the address."""
CONNECTION_TICK = 2.0
"""Seconds between two looks at the head node."""
RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""The variable for the seconds after which Ray ends each process whose head node does not answer; its default is 60."""


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT. Raises ValueError, which names `engine.address`, for another text."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"engine.address: expected HOST:PORT of the head node (the port is 6379 by default), auto or null, got "
            f"{address}; this command must run on a machine of the cluster"
        )
    return host.strip("[]"), int(port)


def ray_package() -> Any:
    """The package ray. Raises TaskError if it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise TaskError(
            "engine=ray: expected the package ray, got none; pip install 'detpipe[ray]', or use engine=local"
        ) from error


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
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
        what = "none" if isinstance(error, ConnectionError) else f"{type(error).__name__}: {first_line(error)}"
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


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def cause_of(error: BaseException) -> str:
    """What a Ray worker raised, in one line."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {first_line(cause)}"


def _check_answer(address: str) -> None:
    """Raise TaskError if nothing listens at an address. Ray itself tries for a minute, or ends the process."""
    error = _silence(address, ANSWER_WAIT)
    if error is not None:
        raise TaskError(
            f"engine.address={address}: expected the head node of a Ray cluster, got no answer ({error}); start it "
            "there with `ray start --head`, or give another address"
        ) from error


def _silence(address: str, wait: float) -> OSError | None:
    """Why nothing answers at an address, or None."""
    try:
        socket.create_connection(host_and_port(address), timeout=wait).close()
    except OSError as error:
        return error
    return None


class Connection:
    """What this process needs of the cluster: the head node, and the node of its own machine.

    Without them, Ray's calls wait without an end, or Ray ends this process after a minute. The head node may be gone
    for two thirds of this time, for example to be started again.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        context = ray.get_runtime_context()
        self._head, self._node = str(context.gcs_address), context.get_node_id()
        self._patience = float(os.environ.get(RECONNECT, "60")) * 2 / 3
        self._looked = self._answered = time.monotonic()
        self._holds = True

    def holds(self) -> bool:
        """Whether the head node answered the last time; it is asked every CONNECTION_TICK seconds.

        Raises TaskError if it has not answered for too long, or if the node of this machine is lost.
        """
        if time.monotonic() - self._looked > CONNECTION_TICK:
            silence = _silence(self._head, ANSWER_WAIT)
            self._holds, self._looked = silence is None, time.monotonic()
            if silence is None:
                self._answered = self._looked
                self._check_node()
            elif self._looked - self._answered > self._patience:
                raise TaskError(
                    f"{self._head}: expected the head node of the Ray cluster, got no answer for "
                    f"{self._looked - self._answered:.0f} s ({silence}); start the cluster again and {_AGAIN}"
                ) from silence
        return self._holds

    def _check_node(self) -> None:
        lost = [one for one in self._ray.nodes() if one["NodeID"] == self._node and not one["Alive"]]
        if lost:
            raise TaskError(
                f"node {node_name(lost[0]['NodeManagerAddress'], self._node)}: expected the node of this machine, got "
                f"a lost one; start it again with `ray start --address={self._head}`, or a new cluster, and {_AGAIN}"
            )


_AGAIN = "run the same command again: what is finished is kept"


def versions() -> dict[str, str]:
    """The versions here of the packages that change results."""
    found = {"detpipe": package_version()}
    for name in ("torch", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


@dataclass(frozen=True)
class Driver:
    """What the nodes must have in common with the process that started the command. Its fields are JSON types.

    folder: where the command was started. versions: see `versions`. strict: whether other versions are refused.
    threads: the value of OMP_NUM_THREADS. marker: a file of the run folder, and what is in it; None: no marker. source:
    a path that all nodes read, or None. wait: seconds to wait for the marker.
    """

    folder: str
    versions: dict[str, str]
    strict: bool
    threads: str
    marker: tuple[str, str] | None
    source: str | None
    wait: float

    @classmethod
    def here(cls, *, strict: bool, cpus: int, marker: tuple[str, str] | None, source: str | None = None) -> Driver:
        """This process. cpus: of a task, which are its threads unless OMP_NUM_THREADS is set here."""
        threads = os.environ.get(THREADS, str(cpus))
        return cls(str(Path.cwd()), versions(), strict, threads, marker, source, MARKER_WAIT)

    def enter(self) -> str | None:
        """Give this Ray worker the driver's threads and folder. Torch reads the threads once, when it is imported.

        Returns a warning about other versions here, or None. Raises TaskError, which names the node, if it does not see
        the run folder, the source or the folder, or has other versions and `strict` is set.
        """
        os.environ[THREADS] = self.threads
        fault = self._enter_folder()
        different = "" if fault else self._different()
        if different and self.strict:
            fault = f"{different}; install the same versions there, or give engine.strict=false"
        if fault:
            raise TaskError(f"node {this_node()}: {fault}")
        return f"node {this_node()}: {different}; results may differ in their last bits" if different else None

    def _enter_folder(self) -> str | None:
        """Go to the driver's folder. Returns why this node can't work there, or None."""
        if self.marker is not None:
            path, text = Path(self.marker[0]), self.marker[1]
            until = time.monotonic() + self.wait
            while _text_of(path) != text:
                if time.monotonic() > until:
                    got = "none" if not path.parent.is_dir() else "another one"
                    return (
                        f"expected the run folder of the driver, with {path}, got {got}; all nodes must see it at the "
                        "same path, on a shared file system"
                    )
                time.sleep(0.2)
        try:
            os.chdir(self.folder)  # paths of the settings may be relative to it
        except OSError:
            return (
                f"expected the folder {self.folder}, where the command was started, got none; start it in a folder of "
                "all nodes"
            )
        if self.source is not None and not exists(Path(self.source)):
            return f"expected the images in {self.source}, got none; all nodes must see them at the same path"
        return None

    def _different(self) -> str:
        """The versions that differ, as text; empty: none."""
        return ", ".join(
            f"expected {name} {self.versions[name]} as in the driver, got {version}"
            for name, version in versions().items()
            if version != self.versions[name]
        )


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def this_node() -> str:
    """The name of the node of this Ray worker."""
    ray = ray_package()
    return node_name(ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id())


def node_name(address: str, number: str) -> str:
    """The name of a node in messages."""
    return f"{address} ({number[:6]})"


def usable_nodes(ray: Any, needs: Mapping[str, float]) -> list[Mapping[str, Any]]:
    """The living nodes that can hold a process that needs these resources, as `ray.nodes` describes them."""
    return [
        node
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(name, 0) >= count for name, count in needs.items())
    ]


def check_nodes(ray: Any, nodes: Sequence[Mapping[str, Any]], driver: Driver) -> None:
    """Let a process on each node enter the driver's folder. Logs their warnings.

    Raises TaskError for the first node that can't. A node that is lost meanwhile is passed over.
    """
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    remote = ray.remote(_enter)
    answers = {
        node_name(node["NodeManagerAddress"], node["NodeID"]): remote.options(
            num_cpus=0, max_retries=0, scheduling_strategy=affinity(node["NodeID"], soft=False)
        ).remote(driver)
        for node in nodes
    }
    for name, answer in answers.items():
        try:
            warning = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, TaskError):
                raise error.cause from None
            raise TaskError(f"node {name}: its Ray worker raised {cause_of(error)}") from error
        except ray.exceptions.RayError as error:
            warning = f"node {name}: {first_line(error)}"
        if warning is not None:
            logger.warning("%s", warning)


def _enter(driver: Driver) -> str | None:
    return driver.enter()
