"""Recall of the proposals of a run: recall.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detpipe.datasets.source import Split
from detpipe.metrics.proposal_recall import proposal_recall
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.stored_split import StoredSplit
from detpipe.storage.atomic import write_json
from detpipe.structures import Dataset


def measure_recall(folder: RunFolder, splits: Mapping[Split, Dataset]) -> dict[str, Any]:
    """Write recall.json of the test images and recall_train.json of the training images.

    Without annotated test images, recall.json is of the training images. Returns the numbers at 1000 boxes in
    recall.json; {} without annotations.
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
    return summary
