"""The table of trackers, for the group `track` of the command line."""

from __future__ import annotations

from detpipe.plugins import PluginTable
from detpipe.tracking.tracker import Tracker

_ROWS = {
    "none": "detpipe.tracking.tracker:NoTracker",
    "tensorboard": "detpipe.tracking.tensorboard:TensorBoard",
    "mlflow": "detpipe.tracking.mlflow:MLflow",
    "wandb": "detpipe.tracking.wandb:WeightsAndBiases",
    "trackio": "detpipe.tracking.trackio:Trackio",
}
TRACKERS = PluginTable("track", "detpipe.trackers", "detpipe.tracking.tracker:Tracker", _ROWS)
"""Word -> "module:Class". A new tracker is one line here, or a plug-in (docs/plugins.md)."""


def tracker_class(word: str) -> type[Tracker]:
    """The class of a tracker. Raises as `PluginTable.load`."""
    found: type[Tracker] = TRACKERS.load(word)
    return found


def tracker_word(tracker: Tracker) -> str:
    """The word of a tracker. Raises KeyError for a class that is not in the table."""
    word = TRACKERS.word_of(type(tracker))
    if word is None:
        raise KeyError(f"track: {type(tracker).__name__} has no word")
    return word
