"""Recall of the proposals of a run: recall.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detpipe.datasets.source import Split
from detpipe.metrics.proposal_recall import proposal_recall
from detpipe.runs.run_folder import RunFolder, dataset_digest
from detpipe.runs.stored_split import StoredSplit
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, read_value
from detpipe.storage.manifest import Manifest, read_manifest, rekey
from detpipe.structures import Dataset


def measure_recall(folder: RunFolder, splits: Mapping[Split, Dataset]) -> dict[str, Any]:
    """Write recall.json of the test images and recall_train.json of the training images.

    Without annotated test images, recall.json is of the training images. Returns the numbers at 1000 boxes in
    recall.json, if there are annotations, and a digest of the objects by split, for the manifest's summary.
    """
    summary: dict[str, Any] = {}
    path = folder.recall
    for split in (Split.test, Split.train):
        dataset = splits.get(split)
        truth = None if dataset is None else dataset.measured_truth
        if dataset is None or truth is None:
            continue
        proposals = StoredSplit(folder.proposals, split, dataset).proposals()
        recalls = proposal_recall(truth, proposals, len(dataset.classes))
        numbers = {str(budget): recall.to_json() for budget, recall in recalls.items()}
        write_json(path, numbers)
        if path == folder.recall:
            summary = {"recall_of": split.value, **numbers["1000"]}
            path = folder.recall.with_name("recall_train.json")
    return summary | {"objects": objects_of(splits)}


def objects_of(splits: Mapping[Split, Dataset]) -> dict[str, str]:
    """Return a digest of the annotated splits by name: the recall is of these objects."""
    return {
        split.value: dataset_digest(dataset) for split, dataset in splits.items() if dataset.ground_truth is not None
    }


def update_recall(folder: RunFolder, splits: Mapping[Split, Dataset]) -> Manifest | None:
    """Measure the recall again if the objects have changed since; the proposals stay.

    Returns the new manifest of the proposals; None if nothing has changed.
    """
    manifest = read_manifest(folder.proposals)
    if "objects" not in manifest.summary or manifest.summary["objects"] == objects_of(splits):
        return None
    rekey(folder.proposals, manifest.inputs, measure_recall(folder, splits))
    return read_manifest(folder.proposals)


def read_recall(path: Path) -> dict[str, dict[str, float | None]]:
    """Read recall.json: the measures by their names, None for those that do not exist, at each number of boxes.

    Raises DataclassJsonError, which names the file and the key, and FileNotFoundError.
    """
    remedy = "run `detpipe propose` again"
    numbers = read_value(path, dict[str, dict[str, float | None]], remedy)
    for budget in numbers:
        if not budget.isdecimal():
            raise DataclassJsonError(f"{path}: expected numbers of boxes as keys, got {budget!r}; {remedy}")
    return numbers
