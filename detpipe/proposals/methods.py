"""All methods by their names: of the group `proposals` on the command line, and of the sources of a fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detpipe.proposals.edge_boxes import EdgeBoxes
from detpipe.proposals.fusion import Fused
from detpipe.proposals.gaussian import Gaussian
from detpipe.proposals.ground_truth import GroundTruthBoxes
from detpipe.proposals.imported import ImportedProposals
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.selective_search import SelectiveSearch
from detpipe.proposals.sliding_window import SlidingWindow
from detpipe.proposals.uniform import Uniform

METHODS: dict[str, type[Proposer]] = {
    "selective_search": SelectiveSearch,
    "multibox": MultiBoxProposals,
    "edge_boxes": EdgeBoxes,
    "gaussian": Gaussian,
    "uniform": Uniform,
    "sliding_window": SlidingWindow,
    "ground_truth": GroundTruthBoxes,
    "import": ImportedProposals,
    "fuse": Fused,
}


def method_name(description: Mapping[str, Any]) -> str:
    """The name of the method that `Proposer.describe` described; of a proposer outside this table its class's."""
    described = str(description["method"])
    return next((name for name, kind in METHODS.items() if kind.__name__ == described), described)


def proposer_of(description: Mapping[str, Any]) -> Proposer | None:
    """The inverse of `Proposer.describe`, as a manifest holds it; None for a proposer that is not of this table.

    Raises ValueError for settings that the method doesn't have (another version's) or refuses.
    """
    name = method_name(description)
    if name not in METHODS:
        return None
    try:
        return METHODS[name](**{key: value for key, value in description.items() if key != "method"})
    except TypeError as error:
        raise ValueError(f"{name}: wanted the settings of this version of detpipe, got others: {error}") from error
