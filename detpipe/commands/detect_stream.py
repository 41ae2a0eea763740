"""`detpipe detect source=DIR out=DIR.parquet engine=ray`: detections by a pool of actors of Ray Data, as a stream.

Only paths travel to the actors, and only detections come back. This process alone writes the parts, in the order of the
images, so each image is in them once, whatever happens to the actors: Ray Data repeats what a lost actor had, and
`Attempts` limits how often. The parts are the same as without an engine. Memory is flat, because Ray Data
gives the actors no work while too many results wait.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import re
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast

from detpipe.classify.kinds import load_region_spec
from detpipe.commands.detect_parts import file_of, write_parts
from detpipe.commands.stage_settings import Detect
from detpipe.datasets.entry import Entry
from detpipe.engines.attempts import Attempts
from detpipe.engines.engine import TaskError
from detpipe.engines.ray import RayEngine
from detpipe.engines.ray_cluster import Connection, check_nodes
from detpipe.integrations.ray import PATH, NodeDetector, results_of
from detpipe.network.device import resolve_device
from detpipe.proposals.proposer import Proposer
from detpipe.runs.detect_settings import inference_precision
from detpipe.runs.detected_files import CHUNK
from detpipe.storage.interrupt import Interrupted, StopRequest
from detpipe.storage.manifest import manifest_path
from detpipe.storage.remote_folder import RemoteFolder
from detpipe.structures import Detections, LeftOut

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
MOST_BLOCKS = 10_000
"""Blocks of paths that Ray Data gets. It keeps some kilobytes for each until the end."""
_TICK = 0.2
"""Seconds after which a signal is noticed."""
_RAISED = re.compile(r"(\w+\.)*[A-Z]\w*(Error|Exception|Exit): ")
_OWN = re.compile(r"^detpipe(\.\w+)*: ")
"""The line of a traceback that names the error, and the name if the error is one of this package."""
_CLOSING = 2.0
"""Seconds to wait until Ray Data has ended its actors. An image that is still in progress after a signal is not waited
for: the end of the connection ends its actor."""


def run(config: Detect, proposer: Proposer | None) -> None:
    """As `detect_parts.run`, on the cluster of `config.engine`. Raises TaskError if the cluster can't do it."""
    classifier = config.folder.classifier
    remote = RemoteFolder.of(config.folder.path)
    # auto depends on the machine: all actors compute in the same precision.
    precision = inference_precision(config.precision, classifier, resolve_device(config.device))
    options = {
        "run_dir": config.run_dir if remote is None else remote.url,
        "device": config.device.value,
        "config": config.detect,
        "precision": precision.value,
        "proposer": None if proposer is None else proposer.describe(),
        "max_pixels": config.max_pixels,
    }

    def detected(entries: Sequence[Entry], stop: StopRequest) -> Generator[Detections | LeftOut, None, None]:
        return _detected(config, options, [file_of(entry) for entry in entries], stop)

    write_parts(config, load_region_spec(classifier), precision, detected)


def _detected(
    config: Detect, options: dict[str, Any], files: Sequence[Path | LeftOut], stop: StopRequest
) -> Generator[Detections | LeftOut, None, None]:
    engine = config.engine
    assert isinstance(engine, RayEngine)
    data = _ray_data()
    paths = [os.fsencode(file) for file in files if isinstance(file, Path)]  # names need not be UTF-8
    marker = manifest_path(config.folder.classifier).resolve()
    # A node fetches a run folder from object storage.
    seen = (str(marker), marker.read_text()) if RemoteFolder.of(marker) is None else None
    with engine.cluster() as ray:
        driver = engine.driver(seen, config.source)
        nodes = engine.nodes(ray)
        if not nodes:
            engine.warn_of_no_node()
        check_nodes(ray, nodes, driver)
        logger.info("detect: %d nodes", len(nodes))
        attempts = Attempts.started(ray, engine.retries)
        tables = _tables(data, engine, paths, {"driver": driver, "attempts": attempts, **options})
        try:
            with closing(_awaited(tables, stop, Connection(ray))) as arriving:
                results = (one for table in arriving for one in results_of(table))
                for file in files:
                    if isinstance(file, LeftOut):
                        yield file
                        continue
                    path, one = next(results)
                    assert path == str(file)
                    yield one
        except ray.exceptions.RayError as error:
            raise TaskError(
                f"{_raised(error)}; what is finished is in {config.out}; run the same command again, it continues "
                "from there"
            ) from error


def _raised(error: BaseException) -> str:
    """What an actor raised, in one line: Ray's message has the traceback of the actor, and advice of its own after it.

    If the actor raised nothing, it is the last line.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    raised = [line for line in lines if _RAISED.match(line) and not line.startswith("ray.")]
    return _OWN.sub("", (raised or lines)[-1])


def _ray_data() -> Any:
    try:
        return importlib.import_module("ray.data")
    except ImportError as error:
        raise TaskError(f"engine=ray: expected Ray Data, got: {error}; pip install 'detpipe[ray]'") from error


def _tables(data: Any, engine: RayEngine, paths: Sequence[bytes], options: dict[str, Any]) -> Iterable[Any]:
    """The tables of the actors for these files, in order. data: Ray Data."""
    import pyarrow

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised as well
    size = CHUNK * max(1, -(-len(paths) // (CHUNK * MOST_BLOCKS)))
    blocks = [pyarrow.table({PATH: paths[start : start + size]}) for start in range(0, len(paths), size)]
    images = data.from_blocks(blocks)
    images.context.execution_options.preserve_order = True
    images.context.enable_progress_bars = False
    found = images.map_batches(
        NodeDetector,
        fn_constructor_kwargs=options,
        compute=data.ActorPoolStrategy(min_size=1),  # it grows to what the cluster has room for
        batch_size=size,
        num_cpus=engine.cpus_per_task,
        num_gpus=engine.gpus_per_task or None,
    )
    return cast("Iterable[Any]", found.iter_batches(batch_size=None, batch_format="pyarrow"))


def _awaited(items: Iterable[Item], stop: StopRequest, connection: Connection) -> Generator[Item, None, None]:
    """Yield the items. Raises Interrupted after a signal, also while the next one is made, in another thread.

    Raises TaskError as `Connection.holds`.

    At most one item waits here, so that Ray Data notices when this process is slower than the actors.
    """
    wanted, answers = threading.Semaphore(0), queue.SimpleQueue[tuple[Item] | BaseException | None]()
    ended = False

    def make() -> None:
        try:
            for item in items:
                wanted.acquire()
                if ended:
                    return
                answers.put((item,))
            answers.put(None)
        except BaseException as error:  # raised in the other thread
            answers.put(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            wanted.release()
            answer = _answer(answers, stop, connection)
            if answer is None:
                return
            if isinstance(answer, BaseException):
                raise answer
            yield answer[0]
    finally:
        ended = True
        wanted.release()
        thread.join(_CLOSING)


def _answer(answers: queue.SimpleQueue[Item], stop: StopRequest, connection: Connection) -> Item:
    while True:
        try:
            return answers.get(timeout=_TICK)
        except queue.Empty:
            if stop:
                raise Interrupted from None
            connection.holds()
