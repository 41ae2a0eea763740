"""A process beside a command that gives the rows of its log to a tracker.

The command starts it, and closes its standard input at the end. If the command is killed, the input closes as well: the
follower then gives the tracker the rows that are left, and ends. tracking.json in the run folder says which rows the
tracker has. It is written before a row is given: a row may get lost if the follower is killed, but never comes twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detpipe.solver.training_log import TrainingLogError, read_log
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_dataclass, read_object
from detpipe.storage.manifest import digest_of, find_manifest, plain
from detpipe.tracking.table import tracker_class, tracker_word
from detpipe.tracking.tracker import Tracker, flat

logger = logging.getLogger(__name__)

RECORD = "tracking.json"
MESSAGES = "tracking.log"
"""Files of the run folder: what the tracker has, and what it printed."""
RESULTS = ("metrics.json", "recall.json", "report.html")
"""Files of the run folder that a tracker stores."""

INTERVAL = 2.0
"""Seconds between two looks at the log."""
PATIENCE = 60.0
"""Seconds that a command waits at its end for the tracker."""


@dataclass(frozen=True)
class Order:
    """What a follower does. word, settings: the tracker. folder: the run folder.

    log: log.jsonl of the training, relative to the run folder; "" for a command that does not train.
    config: the settings that the tracker shows.
    """

    word: str
    settings: dict[str, Any]
    folder: str
    log: str
    config: dict[str, Any]

    def tracker(self) -> Tracker:
        """The tracker with its settings."""
        return tracker_class(self.word)(**self.settings)

    @property
    def stage(self) -> str:
        """The folder of the training, as "classifier"."""
        return Path(self.log).parent.as_posix()


@dataclass
class Tracked:
    """The content of tracking.json: what a run of the tracker has.

    tracker: digest of the tracker's settings. run: the id of the run. keys: the digest of each training, by stage.
    steps: the last iteration of each stage. metrics: the digest of the last metrics. evaluations: how often metrics
    were logged.
    """

    tracker: str
    run: str | None = None
    keys: dict[str, str] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    metrics: str = ""
    evaluations: int = 0


@contextlib.contextmanager
def following(tracker: Tracker, folder: Path, *, log: Path | None, config: Mapping[str, Any]) -> Iterator[None]:
    """Give the rows that the block writes to a tracker, by another process.

    folder: the run folder. log: log.jsonl of the training, in the run folder; None for an evaluation. A tracker that
    fails is a warning: the block is never stopped, and an error of the block is raised as it is.
    """
    if not tracker.is_on:
        yield
        return
    place = log.relative_to(folder).as_posix() if log is not None else ""
    order = Order(tracker_word(tracker), plain(tracker), str(folder.resolve()), place, dict(plain(config)))
    process = _start(order)
    try:
        yield
    finally:
        if process is not None:
            _finish(process, order)


def _start(order: Order) -> subprocess.Popen[bytes] | None:
    """The follower's process, which has its order; None, with a warning, if it cannot be started."""
    try:
        folder = Path(order.folder)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / MESSAGES).open("ab") as messages:
            # A session of its own: Ctrl-C stops the command, and the follower then still gives the last rows.
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=messages,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        process.stdin.flush()
    except OSError as error:
        logger.warning("track=%s: nothing is tracked, the follower did not start: %s", order.word, error)
        return None
    return process


def _finish(process: subprocess.Popen[bytes], order: Order) -> None:
    """Close the follower's input and wait until it has given all rows. A warning if it fails, or takes too long."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    messages = Path(order.folder) / MESSAGES
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        logger.warning(
            "track=%s: still busy after %g s, it goes on alone; its messages are in %s", order.word, PATIENCE, messages
        )
        return
    if status != 0:
        lines = messages.read_text(errors="replace").strip().splitlines() if messages.is_file() else []
        logger.warning(
            "track=%s: failed with %s; nothing else is affected. All its messages are in %s; the same command with "
            "track=%s logs what is missing",
            *(order.word, lines[-1][:300] if lines else f"status {status}", messages, order.word),
        )


def main() -> None:
    """Follow as standard input orders, until it closes."""
    logging.basicConfig(format="%(message)s")
    order = from_json(json.loads(sys.stdin.readline()), Order, "the order of a follower")
    over = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=watch, daemon=True).start()
    follow(order, over)


def follow(order: Order, over: threading.Event) -> None:
    """Give a tracker the rows of a log until `over` is set; of a command that does not train, the results after it."""
    folder = Path(order.folder)
    tracked = _tracked(folder, digest_of([order.word, order.settings]))
    with _Run(order, tracked) as run:
        while not over.wait(INTERVAL):
            if order.log:
                run.give_rows()
        if order.log:
            run.give_rows()
        else:
            run.give_results()


class _Run:
    """A run of a tracker, and tracking.json. The tracker is opened when there is something to give."""

    def __init__(self, order: Order, tracked: Tracked) -> None:
        self._order = order
        self._folder = Path(order.folder)
        self._tracked = tracked
        self._tracker: Tracker | None = None

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracker is not None:
            self._tracker.close()

    def give_rows(self) -> None:
        """Give the rows of the log that the tracker does not have."""
        stage, path = self._order.stage, self._folder / self._order.log
        try:
            rows = read_log(path)
        except (TrainingLogError, OSError) as error:  # also while the log is replaced by a shorter one
            logger.warning("%s", error)
            return
        manifest = find_manifest(path.parent)
        if not rows or manifest is None:
            return
        if self._tracked.keys.get(stage, manifest.digest) != manifest.digest:  # another training: another run
            if self._tracker is not None:
                self._tracker.close()
                self._tracker = None
            self._tracked = Tracked(self._tracked.tracker)
        self._tracked.keys[stage] = manifest.digest
        for row in rows:
            if row["iteration"] > self._tracked.steps.get(stage, 0):
                tracker = self._opened()
                self._tracked.steps[stage] = row["iteration"]
                self._write()
                tracker.log(_numbers(row, stage), row["iteration"])

    def give_results(self) -> None:
        """Give the metrics and the files of the run folder, unless the tracker has the same metrics."""
        path = self._folder / "metrics.json"
        if not path.is_file():
            return
        metrics = read_object(path)
        metrics.pop("seconds", None)  # differs in each evaluation
        digest = digest_of(metrics)
        if self._tracked.metrics == digest:
            return
        tracker = self._opened()
        self._tracked.metrics = digest
        self._tracked.evaluations += 1
        self._write()
        tracker.log(_numbers(flat(metrics), "metrics"), self._tracked.evaluations)
        for name in RESULTS:
            if (self._folder / name).is_file():
                tracker.keep(self._folder / name)

    def _opened(self) -> Tracker:
        if self._tracker is None:
            tracker = self._order.tracker()
            self._tracked.run = tracker.open(self._order.config, self._folder, self._tracked.run)
            self._tracker = tracker
            self._write()
        return self._tracker

    def _write(self) -> None:
        write_json(self._folder / RECORD, asdict(self._tracked))


def _numbers(values: Mapping[str, Any], stage: str) -> dict[str, float]:
    """The finite numbers among the values, with names as "classifier/loss"."""
    return {
        f"{stage}/{name.replace('.', '/')}": float(value)
        for name, value in values.items()
        if name != "iteration" and type(value) in (int, float) and math.isfinite(value)
    }


def _tracked(folder: Path, tracker: str) -> Tracked:
    """What this tracker has of the run folder; nothing if tracking.json is missing, damaged or of another tracker."""
    try:
        found = read_dataclass(folder / RECORD, Tracked)
    except (FileNotFoundError, DataclassJsonError):
        return Tracked(tracker)
    return found if found.tracker == tracker else Tracked(tracker)


if __name__ == "__main__":
    main()
