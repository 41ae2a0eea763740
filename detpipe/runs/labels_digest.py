"""The digest of all labels of a data set, which connects a file of suspects or corrections with the labels it is of."""

from __future__ import annotations

from collections.abc import Mapping

from detpipe.datasets.source import Split
from detpipe.runs.run_folder import dataset_digest
from detpipe.storage.manifest import digest_of
from detpipe.structures import Dataset


def labels_digest(splits: Mapping[Split, Dataset]) -> str:
    """Return the digest of classes, images and objects of all splits, in any order. No splits have a digest too."""
    return digest_of({split.value: dataset_digest(dataset) for split, dataset in splits.items()})
