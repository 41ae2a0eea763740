"""The table of heads: from the name in `head=NAME` to its settings class.

A new head needs one row here. A head on stored features also names its module in `StoredHeadConfig.MODULE`; see
docs/new_head.md.
"""

from __future__ import annotations

from typing import Any

from detpipe.class_path import class_path_of, load_class

HEADS: dict[str, str] = {
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
"""From the head's name to "module:Class"."""


def head_word(head: object) -> str:
    """The name of a head from its settings. Raises ValueError for settings that are not in the table."""
    for word, reference in HEADS.items():
        if reference == class_path_of(type(head)):
            return word
    raise ValueError(f"head: {type(head).__name__} has no name; add a row to HEADS in detpipe/heads/table.py")


def head_class(word: str) -> Any:
    """The settings class of a head's name. Raises ValueError for an unknown name."""
    if word not in HEADS:
        raise ValueError(f"head={word}: expected one of {', '.join(HEADS)}")
    return load_class(HEADS[word])
