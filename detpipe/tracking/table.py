"""The table of trackers, for the group `track` of the command line."""

from __future__ import annotations

from collections.abc import Mapping

from detpipe.class_path import load_class
from detpipe.tracking.tracker import Tracker

TRACKERS: Mapping[str, str] = {
    "none": "detpipe.tracking.tracker:NoTracker",
    "tensorboard": "detpipe.tracking.tensorboard:TensorBoard",
    "mlflow": "detpipe.tracking.mlflow:MLflow",
    "wandb": "detpipe.tracking.wandb:WeightsAndBiases",
    "trackio": "detpipe.tracking.trackio:Trackio",
}
"""Word -> "module:Class". A new tracker is one line here."""


def tracker_class(word: str) -> type[Tracker]:
    """The class of a tracker. Raises KeyError for a word that is not in the table."""
    return load_class(TRACKERS[word])


def tracker_word(tracker: Tracker) -> str:
    """The word of a tracker. Raises KeyError for a class that is not in the table."""
    path = f"{type(tracker).__module__}:{type(tracker).__qualname__}"
    return {listed: word for word, listed in TRACKERS.items()}[path]
