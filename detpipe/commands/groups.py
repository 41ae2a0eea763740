"""The table of groups: the words of `dataset=...`, `head=...` and the others, and the class of each.

Nothing is imported from here before an option is chosen, so the shell's completion answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from detpipe.backbone.settings import NETWORKS
from detpipe.class_path import class_path_of, load_class
from detpipe.datasets.formats import AUTO, FORMATS
from detpipe.engines.table import ENGINES
from detpipe.heads.table import HEADS
from detpipe.metrics.table import METRICS
from detpipe.plugins import PluginTable
from detpipe.proposals.methods import METHODS
from detpipe.tracking.table import TRACKERS

GROUPS: dict[str, Mapping[str, str]] = {
    "dataset": FORMATS.with_rows({AUTO: "detpipe.datasets.auto:AutoSource"}),
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
    "engine": ENGINES,
}
"""Group -> option -> "module:Class" of its dataclass. A new component is one line here. Presets of these options stand
in conf/GROUP/*.yaml."""

TABLES: dict[str, PluginTable] = {
    **{group: table for group, table in GROUPS.items() if isinstance(table, PluginTable)},
    NETWORKS.setting: NETWORKS,
    METRICS.setting: METRICS,
}
"""The settings whose words other packages extend."""


def option_class(group: str, option: str) -> type:
    """The class of an option. Raises KeyError for an unknown one, and as `PluginTable.load`."""
    table = GROUPS[group]
    found: type = table.load(option) if isinstance(table, PluginTable) else load_class(table[option])
    return found


def option_of(group: str, kind: type) -> str | None:
    """The option that a class is, as `PluginTable.word_of`; None for a class of no option."""
    table = GROUPS[group]
    if isinstance(table, PluginTable):
        return table.word_of(kind)
    return next((option for option, path in table.items() if path == class_path_of(kind)), None)


def options_for_settings(group: str) -> Iterator[tuple[str, str]]:
    """Option and "module:Class" of all options of a group, also of classes that the user typed."""
    table = GROUPS[group]
    yield from table.items()
    yield from ((path, path) for path in (table.typed if isinstance(table, PluginTable) else ()))
