"""A worker process of engine=local: `python -m detpipe.engines.worker`.

It reads one JSON line per task from stdin, {"function", "settings", "tasks", "task"}. It writes one JSON line per event
to stdout: as in `detpipe.engines.events`, then {"event": "finished"} or {"event": "failed", "text"}. It ends when
stdin ends, also in the middle of a task: then the process that started it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any

from detpipe.engines.engine import TaskCall
from detpipe.engines.events import Send, sent
from detpipe.storage.interrupt import Interrupted
from detpipe.storage.shards import ShardHeldError


def main() -> None:
    """Run tasks until stdin ends."""
    # Whatever a library prints must not mix with the events.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(event: Mapping[str, Any]) -> None:
        with lock:
            events.write(json.dumps(event) + "\n")
            events.flush()

    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    logging.captureWarnings(True)
    while True:
        task = json.loads(lines.get())
        number = task.pop("task")
        send(run_task(TaskCall(**task), number, send))


def _read(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def run_task(call: TaskCall, task: int, send: Send) -> dict[str, Any]:
    """Run one task in this process; returns its last event. send: takes the others.

    The last event is "finished", or "failed" with its text. "held" is true if another process makes the shard,
    "system" for an error of the operating system, such as a full disk.
    """
    try:
        with sent(send):
            call.run(task)
    except Interrupted as stopped:
        return {"event": "failed", "text": str(stopped)}
    except Exception as error:  # whatever a task raises, the other tasks go on
        logging.getLogger(__name__).debug("task %d", task, exc_info=True)
        text = str(error) or type(error).__name__
        held, system = isinstance(error, ShardHeldError), isinstance(error, OSError)
        return {"event": "failed", "text": text, "held": held, "system": system}
    return {"event": "finished"}


if __name__ == "__main__":
    main()
