"""How often the actors of a stream began a piece of work without ending it: a process that is killed can't tell.

Ray Data repeats the work of a lost actor. Its own limit, `max_task_retries`, is not used: it also counts work that only
waited in the lost actor, does not name the work, and does not count the processes that end while they start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from detpipe.engines.engine import TaskError
from detpipe.engines.ray_cluster import ray_package


class Counts:
    """A Ray actor that counts the attempts of each piece of work that is not done."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}

    def begin(self, work: str) -> int:
        """Add an attempt; returns the number of those before it."""
        before = self._begun.get(work, 0)
        self._begun[work] = before + 1
        return before

    def end(self, work: str) -> None:
        """Forget work that is done, or that failed with an error."""
        self._begun.pop(work, None)


class Attempts:
    """What an actor needs to count. It can be sent to other processes.

    counts: a handle of `Counts`. retries: how often work is begun again whose process was lost.
    """

    def __init__(self, counts: Any, retries: int) -> None:
        self._counts, self._retries = counts, retries

    @classmethod
    def started(cls, ray: Any, retries: int) -> Attempts:
        """Counts on the node of this process."""
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = affinity(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
        return cls(ray.remote(Counts).options(**options).remote(), retries)

    @contextlib.contextmanager
    def one(self, work: str, doing: str, remedy: str = "") -> Iterator[None]:
        """A block that does a piece of work. work: its name. doing, remedy: for the message.

        Raises TaskError if the processes of all allowed attempts were lost.
        """
        ray = ray_package()
        before = 0
        with contextlib.suppress(ray.exceptions.RayError):  # the counts were lost: they begin at 0 again
            before = ray.get(self._counts.begin.remote(work))
        try:
            if before > self._retries:
                raise TaskError(
                    f"{before} processes were killed or crashed while they {doing}, and engine.retries={self._retries} "
                    "allows no further one. If their memory ran out, let fewer of them share a node (a larger "
                    f"engine.cpus_per_task){remedy}"
                )
            yield
        finally:
            self._counts.end.remote(work)
