"""A detector in a pipeline of Ray Data: an actor that takes paths or pixels and gives the detections.

    images.map_batches(DetectorActor, fn_constructor_args=["runs/mine"], compute=ActorPoolStrategy(min_size=1), ...)

This file does not import torch: a worker may set its threads before it loads the detector.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detpipe.engines.attempts import Attempts
from detpipe.engines.ray_cluster import Driver, ray_package
from detpipe.runs.parquet_results import utf8_text
from detpipe.structures import Detections, LeftOut

if TYPE_CHECKING:
    import pyarrow

    from detpipe.datasets.image_file import AnyImage

PATH, PIXELS = "path", "image"
"""The columns that may hold the images."""
_REMEDY = ". If it is one of the images, `detpipe detect source=FILE` shows which; take it out of the source"


class DetectorActor:
    """A callable class for `ray.data.Dataset.map_batches`. Each actor loads the detector once.

    A batch has the column `image`, pixels (H, W, 3) uint8, or `path`, files that the actor's node can read. The result
    has a row for each image: the columns of the batch without `image`, and

    - boxes: list of [x1, y1, x2, y2], float32, in pixels; scores: list of float32, from high to low;
    - labels: list of int64 in 1..K; classes: list of the classes' names;
    - unreadable: why the file can't be read, else null. Then the lists are empty.
    """

    def __init__(self, run_dir: str, **options: Any) -> None:
        """run_dir: a run folder. options: of `Detector.from_run`. Raises its errors."""
        from detpipe.runs.detector import Detector

        self._detector = Detector.from_run(run_dir, **options)

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> pyarrow.Table:
        """Detect in a batch, in chunks of 8 images that share the network's batches. No images give no rows.

        Raises ValueError for a batch without images, and for arrays that are not images.
        """
        import pyarrow

        from detpipe.runs.detected_files import detected_files

        found = list(detected_files(self._detector, _images(batch)))
        table = pyarrow.table({name: _column(values) for name, values in batch.items() if name != PIXELS})
        for name, values in _columns(found, self._detector.classes).items():
            table = table.append_column(name, values)
        return table


def _images(batch: Mapping[str, npt.NDArray[Any]]) -> list[AnyImage | LeftOut]:
    if PIXELS in batch:
        return list(batch[PIXELS])
    if PATH in batch:
        return [os.fsdecode(path) for path in batch[PATH]]
    raise ValueError(f"batch: expected a column {PATH} or {PIXELS}, got {', '.join(batch) or 'none'}; rename yours")


def _column(values: npt.NDArray[Any]) -> pyarrow.Array:
    import pyarrow

    return pyarrow.array(values if values.ndim == 1 else values.tolist())


def _columns(found: Sequence[Detections | LeftOut], classes: Sequence[str]) -> dict[str, pyarrow.Array]:
    import pyarrow as pa

    from detpipe.classify.detect import NO_DETECTIONS

    kept = [NO_DETECTIONS if isinstance(one, LeftOut) else one for one in found]
    boxes, scores, labels = (
        np.concatenate([getattr(one, name) for one in (NO_DETECTIONS, *kept)]) for name in ("boxes", "scores", "labels")
    )
    offsets = pa.array(np.cumsum([0, *map(len, kept)], dtype=np.int32))
    columns = {
        "boxes": pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), 4),
        "scores": pa.array(scores),
        "labels": pa.array(labels),
        "classes": pa.array([classes[label - 1] for label in labels.tolist()], pa.string()),
    }
    reasons = [utf8_text(one.reason) if isinstance(one, LeftOut) else None for one in found]
    return {
        **{name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()},
        "unreadable": pa.array(reasons, pa.string()),
    }


def results_of(table: pyarrow.Table) -> Iterator[tuple[str, Detections | LeftOut]]:
    """The path of each image in a table of `DetectorActor`, and its detections, or why it can't be read."""
    columns = (table[name] for name in (PATH, "boxes", "scores", "labels", "unreadable"))
    for path, boxes, scores, labels, reason in zip(*columns, strict=True):
        file = os.fsdecode(path.as_py())
        if reason.is_valid:
            yield file, LeftOut(file, reason.as_py())
        else:
            sides = boxes.values.flatten().to_numpy().reshape(-1, 4)
            yield file, Detections(sides, scores.values.to_numpy(), labels.values.to_numpy())


class NodeDetector(DetectorActor):
    """The actor of `detpipe detect out=DIR engine=ray`, which works in the driver's folder and with its threads.

    If the processes of several actors end while they detect in the same images, or one process after the other while it
    loads the detector, it raises TaskError: Ray Data would start new ones without an end.
    """

    def __init__(
        self,
        driver: Driver,
        run_dir: str,
        *,
        attempts: Attempts,
        proposer: Mapping[str, Any] | None,
        **options: Any,
    ) -> None:
        """proposer: as `Proposer.describe` gives it; None: the network proposes itself. Raises as `Driver.enter`."""
        driver.enter()
        self._attempts = attempts
        actor = ray_package().get_runtime_context().get_actor_id()  # a process that follows a lost one has the same
        with attempts.one(f"actor {actor}", f"loaded the detector of {run_dir}"):
            from detpipe.proposals.methods import proposer_of

            made = None if proposer is None else proposer_of(proposer)
            super().__init__(run_dir, proposer=made, **options)

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> pyarrow.Table:
        """As `DetectorActor`, for a batch of paths alone. Raises TaskError, see above."""
        import pyarrow

        from detpipe.runs.detected_files import CHUNK

        tables = []
        for start in range(0, max(1, len(batch[PATH])), CHUNK):
            paths = batch[PATH][start : start + CHUNK]
            files = ", ".join(map(os.fsdecode, paths))
            with self._attempts.one(files, f"detected in {files}", _REMEDY):
                tables.append(super().__call__({PATH: paths}))
        return pyarrow.concat_tables(tables)
