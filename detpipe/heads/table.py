"""The table of heads: from the name in `head=NAME` to its settings class.

A new head needs one row here, or is a plug-in (docs/plugins.md). A head on stored features also names its module in
`StoredHeadConfig.MODULE`; see docs/new_head.md.
"""

from __future__ import annotations

from typing import Any

from detpipe.plugins import PluginTable

_ROWS = {
    "softmax": "detpipe.heads.region_head:TrainedHeadConfig",
    "fast_rcnn": "detpipe.heads.fast_rcnn.settings:FastRcnnConfig",
    "multibox_fast_rcnn": "detpipe.heads.fast_rcnn.settings:MultiBoxFastRcnnConfig",
    "svm": "detpipe.heads.stored.linear_svm:SvmConfig",
    "linear": "detpipe.heads.stored.softmax_regression:SoftmaxRegressionConfig",
    "two_layers": "detpipe.heads.stored.two_layers:TwoLayersConfig",
    "knn": "detpipe.heads.stored.nearest_neighbours:NearestNeighboursConfig",
    "prototypes": "detpipe.heads.stored.prototypes:PrototypesConfig",
    "zero_shot": "detpipe.heads.stored.zero_shot:ZeroShotConfig",
}
HEADS = PluginTable("head", "detpipe.heads", "detpipe.heads.region_head:RegionHeadConfig", _ROWS)
"""From the head's name to "module:Class"."""


def head_word(head: object) -> str:
    """The name of a head from its settings, as `PluginTable.word_of`. Raises ValueError for settings without one."""
    word = HEADS.word_of(type(head))
    if word is None:
        raise ValueError(
            f"head: {type(head).__name__} has no name; add a row to HEADS in detpipe/heads/table.py, or put the class "
            "at the top level of a module of yours"
        )
    return word


def head_class(word: str) -> Any:
    """The settings class of a head's name. Raises ValueError for an unknown name, and as `PluginTable.load`."""
    if word not in HEADS:
        raise ValueError(f"head={word}: expected one of {', '.join(HEADS)}")
    return HEADS.load(word)
