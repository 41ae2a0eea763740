"""All methods by their names: of the group `proposals` on the command line, and of the sources of a fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detpipe.class_path import load_class
from detpipe.proposals.proposer import Proposer

METHODS: dict[str, str] = {
    "selective_search": "detpipe.proposals.selective_search.search:SelectiveSearch",
    "multibox": "detpipe.proposals.multibox:MultiBoxProposals",
    "edge_boxes": "detpipe.proposals.edge_boxes:EdgeBoxes",
    "gaussian": "detpipe.proposals.baselines:Gaussian",
    "uniform": "detpipe.proposals.baselines:Uniform",
    "sliding_window": "detpipe.proposals.baselines:SlidingWindow",
    "ground_truth": "detpipe.proposals.baselines:GroundTruthBoxes",
    "import": "detpipe.proposals.files.imported:ImportedProposals",
    "fuse": "detpipe.proposals.fusion:Fused",
}
"""Name -> "module:Class" of a Proposer. A new method is one line here."""


def method(name: str) -> type[Proposer]:
    """The class of a method. Raises KeyError for a name that is not in the table."""
    return load_class(METHODS[name])


def method_name(description: Mapping[str, Any]) -> str:
    """The name of the method that `Proposer.describe` described; of a proposer outside this table its class's."""
    described = str(description["method"])
    return next((name for name, path in METHODS.items() if path.partition(":")[2] == described), described)


def proposer_of(description: Mapping[str, Any]) -> Proposer | None:
    """The inverse of `Proposer.describe`, as a manifest holds it; None for a proposer that is not of this table.

    Raises ValueError for settings that the method doesn't have (another version's) or refuses.
    """
    name = method_name(description)
    if name not in METHODS:
        return None
    try:
        return method(name)(**{key: value for key, value in description.items() if key != "method"})
    except TypeError as error:
        raise ValueError(f"{name}: expected the settings of this version of detpipe, got others: {error}") from error
