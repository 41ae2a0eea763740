"""The table of groups: the words of `dataset=...`, `head=...` and the others, and the class of each.

Nothing is imported from here before an option is chosen, so the shell's completion answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from detpipe.datasets.formats import AUTO, FORMATS
from detpipe.heads.table import HEADS
from detpipe.proposals.methods import METHODS
from detpipe.tracking.table import TRACKERS

GROUPS: dict[str, Mapping[str, str]] = {
    "dataset": {AUTO: "detpipe.datasets.auto:AutoSource", **FORMATS},
    "proposals": METHODS,
    "backbone": {"efficientnet_lite0": "detpipe.backbone.settings:BackboneConfig"},
    "crops": {"warp": "detpipe.classify.crops.settings:CropConfig"},
    "sampling": {"rcnn": "detpipe.classify.labeling:SamplingConfig"},
    "head": HEADS,
    "multibox": {"pyramid": "detpipe.heads.multibox.settings:MultiBoxConfig"},
    "solver": {
        "adamw": "detpipe.solver.solver_config:SolverConfig",
        "multibox": "detpipe.heads.multibox.settings:MultiBoxSolverConfig",
    },
    "track": TRACKERS,
}
"""Group -> option -> "module:Class" of its dataclass. A new component is one line here. Presets of these options stand
in conf/GROUP/*.yaml."""
