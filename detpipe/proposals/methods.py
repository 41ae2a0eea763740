"""The table of proposal methods, for the group `proposals` of the command line and for the sources of a fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detpipe.plugins import PluginTable, check_objects, is_plugin_name

if TYPE_CHECKING:
    from detpipe.proposals.proposer import Proposer

_ROWS = {
    "selective_search": "detpipe.proposals.selective_search.search:SelectiveSearch",
    "multibox": "detpipe.proposals.multibox:MultiBoxProposals",
    "edge_boxes": "detpipe.proposals.edge_boxes:EdgeBoxes",
    "gaussian": "detpipe.proposals.baselines:Gaussian",
    "uniform": "detpipe.proposals.baselines:Uniform",
    "sliding_window": "detpipe.proposals.baselines:SlidingWindow",
    "ground_truth": "detpipe.proposals.baselines:GroundTruthBoxes",
    "import": "detpipe.proposals.files.imported:ImportedProposals",
    "python": "detpipe.proposals.python_object:PythonProposals",
    "onnx": "detpipe.proposals.onnx_models.proposer:OnnxProposals",
    "torchvision": "detpipe.proposals.torchvision_detector:TorchvisionProposals",
    "fuse": "detpipe.proposals.fusion:Fused",
    "tiled": "detpipe.proposals.tiled:TiledProposals",
}
METHODS = PluginTable("proposals", "detpipe.proposals", "detpipe.proposals.proposer:Proposer", _ROWS)
"""Name -> "module:Class" of a Proposer. A new method needs one line here, or is a plug-in (docs/plugins.md)."""


def method(name: str) -> type[Proposer]:
    """The class of a method. Raises KeyError for a name that is not in the table, and as `PluginTable.load`."""
    found: type[Proposer] = METHODS.load(name)
    return found


def described_name(kind: type[Proposer]) -> str:
    """The method's name in `Proposer.describe`: the class name of a proposer of this package, the word of a plug-in."""
    word = METHODS.word_of(kind)
    return word if word is not None and is_plugin_name(word) else kind.__name__


def method_name(description: Mapping[str, Any]) -> str:
    """The method's name in a result of `Proposer.describe`; the class name for a proposer outside the table."""
    described = str(description["method"])
    return next((name for name, path in METHODS.rows.items() if path.partition(":")[2] == described), described)


def proposer_of(description: Mapping[str, Any]) -> Proposer | None:
    """The inverse of `Proposer.describe`; None for a proposer outside the table.

    Raises ValueError for settings that this version of the method doesn't have or doesn't accept, and PluginError for a
    plug-in that is missing, broken, or named by the description alone.
    """
    name = method_name(description)
    if name not in METHODS:
        return None
    check_objects(description)
    try:
        return method(name)(**{key: value for key, value in description.items() if key != "method"})
    except TypeError as error:
        raise ValueError(
            f"{name}: expected the settings of this version of detpipe, got others: {error}; run propose again"
        ) from error
