"""Hands the dataclasses of the tables to Hydra, as the schema and the only home of their defaults.

Hydra asks for a configuration by its name, and only then its class is imported: of a command with torch in its work no
torch is imported for `--help` or `--cfg job`.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import dataclasses
import functools
import logging
import math
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detpipe.commands.groups import GROUPS, option_class, option_of
from detpipe.commands.table import COMMANDS, CommandRow
from detpipe.plugins import allow, check_objects

logger = logging.getLogger(__name__)

APPLICATIONS: dict[str, CommandRow] = {row.application: row for row in COMMANDS.values()}
"""The commands by the names that Hydra has for them."""

CHOSEN_WHOLE = ("proposals", "head", "solver", "track", "engine")
"""Fields whose options have different keys, which must not be mixed."""

NOT_TAKEN: dict[str, frozenset[str]] = {
    "detect": frozenset(),
    "curve": frozenset({"dedup_step", "crops", "features"}),
    "export": frozenset({"dedup_step", "crops"}),
}
"""Commands on a trained detector, and which of its stored inference settings they can't use: they refuse them."""

_OBJECT = re.compile(r"object\s*[=:]\s*[\"']?([^\W\d][\w.]*:[^\W\d]\w*)")
"""The class in proposals.object=module:Class, and in proposals.settings={python:{object:'module:Class'}}."""

_DEFAULTS: dict[str, dict[str, Any]] = {}
"""Application -> settings that replace the defaults of its schema while a command is composed a second time."""

LOG_FILE = "detpipe.log"
"""The log of a run folder, as conf/hydra/job_logging names it."""

EXPERIMENT = "experiment"
"""The group of presets that set several groups at once; it has no field."""


def register() -> None:
    """Let Hydra find the tables. It may be called again."""
    Plugins.instance().register(TableSource)
    Plugins.instance().register(TableSearchPath)
    OmegaConf.register_new_resolver("home", lambda path: str(Path(path).expanduser()), replace=True)


class NewRunFolder(Callback):
    """Notes which folders Hydra makes, so that a command that fails at once leaves none of them behind."""

    _made: ClassVar[list[Path]] = []

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Before the run folder is made."""
        self._note_place(config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Before the folder of a sweep is made."""
        self._note_place(config.hydra.sweep)

    @classmethod
    def _note_place(cls, place: DictConfig) -> None:
        try:
            path = Path(place.dir)
        except OmegaConfBaseException:  # Hydra reads it next, and reports it
            return
        cls.note(path)

    @classmethod
    def note(cls, path: Path) -> None:
        """Note which folders are made when `path` is."""
        cls._made[:] = [one for one in (path, *path.parents) if not os.path.lexists(one)]

    @classmethod
    def remove_if_empty(cls) -> None:
        """Remove the folders that Hydra made, unless a command wrote into them."""
        made, cls._made[:] = [*cls._made], []
        for folder in made[:1]:
            files = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
            if any(not {".hydra", LOG_FILE, "multirun.yaml"} & set(path.parts) for path in files):
                return
            shutil.rmtree(folder, ignore_errors=True)
        for folder in made[1:]:
            with contextlib.suppress(OSError):
                folder.rmdir()


class TableSearchPath(SearchPathPlugin):
    """Adds the tables to the places where Hydra looks for configurations."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Behind conf/: presets and options have different names, so the order does not matter."""
        search_path.append("tables", f"{TableSource.scheme()}://")


class TableSource(ConfigSource):
    """The configurations that the tables give: COMMAND, schema/COMMAND, and GROUP/OPTION."""

    @staticmethod
    def scheme() -> str:
        """The first part of the source's address."""
        return "detpipe"

    def available(self) -> bool:
        """Always: it is part of the package."""
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        """The configuration with this name. Raises ConfigLoadError if it does not exist."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        header: dict[str, str | None] = {"package": None}
        if group == "" and name in APPLICATIONS:
            node: Any = primary(APPLICATIONS[name])
        elif group == "schema" and name in APPLICATIONS:
            node, header = _without_components(APPLICATIONS[name].load_settings()), {"package": "_global_"}
            node.merge_with(_DEFAULTS.get(name, {}))
        elif name in GROUPS.get(group, ()):
            node = option_class(group, name)
        else:
            raise ConfigLoadError(f"{config_path}: no such configuration")
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=_with_open_mappings(
                copy.deepcopy(schema_of(node)) if isinstance(node, type) else OmegaConf.create(node)
            ),
            header=header,
        )

    def is_group(self, config_path: str) -> bool:
        """Whether it is one of the groups, or the place of all."""
        return config_path.rstrip("/") in ("", "schema", *GROUPS)

    def is_config(self, config_path: str) -> bool:
        """Whether a configuration with this name exists."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return name in (APPLICATIONS if group in ("", "schema") else GROUPS.get(group, ()))

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """The names in a group, without importing their classes."""
        group = config_path.strip("/")
        names = [] if results_filter is ObjectType.GROUP else self._names(group)
        groups = [] if group or results_filter is ObjectType.CONFIG else ["schema", *GROUPS]
        return sorted([*names, *groups])

    @staticmethod
    def _names(group: str) -> builtins.list[str]:
        return [*(APPLICATIONS if group in ("", "schema") else GROUPS.get(group, ()))]


def _with_open_mappings(config: DictConfig) -> DictConfig:
    """The configuration, whose fields that are mappings take any key: a dataclass declares no keys of these."""
    for name in map(str, config):
        node = None if OmegaConf.is_missing(config, name) else config._get_node(name)
        if (
            isinstance(node, DictConfig)
            and OmegaConf.get_type(node) is dict
            and dataclasses.is_dataclass(OmegaConf.get_type(config))
        ):
            OmegaConf.set_struct(node, False)
    return config


class RefuseLinks(Callback):
    """Refuses a run folder with links out of it before Hydra writes its log and the composed settings there."""

    def __init__(self, command: str) -> None:
        self._command = command

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """End the process with one sentence: Hydra turns other errors of a callback into warnings."""
        from detpipe.storage.links import LinkError, refuse_links

        try:
            refuse_links(Path(str(config.run_dir)).expanduser())
        except (LinkError, OSError) as error:
            raise SystemExit(f"detpipe {self._command}: {error}") from error
        except OmegaConfBaseException:  # an error in the settings, which is said when they are used
            return

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """As `on_run_start`: the folders of the jobs are inside run_dir."""
        self.on_run_start(config)


def primary(row: CommandRow) -> dict[str, Any]:
    """What Hydra composes for a command: its schema, the option of each group that is its default, and Hydra's own."""
    choices = default_choices(row)
    return {
        "defaults": [
            {"schema": row.application},
            "common",
            *({group: option} for group, option in choices.items()),
            "_self_",
            {EXPERIMENT: None},
            {"override hydra/job_logging": "detpipe" if row.writes_run_dir else "terminal"},
        ],
        "hydra": {
            "job": {"name": row.application},
            # Without a run folder of its own: it reads only, or writes where it is told to.
            **(
                {"callbacks": {"links": {"_target_": f"{__name__}.{RefuseLinks.__name__}", "command": row.name}}}
                if row.writes_run_dir
                else {"run": {"dir": "."}, "output_subdir": None}
            ),
        },
    }


def default_choices(row: CommandRow) -> dict[str, str | None]:
    """Group -> option for each field with the name of a group, by the class of its default; None where it is null.

    Raises ValueError for a class in no table.
    """
    choices: dict[str, str | None] = {}
    for field in dataclasses.fields(row.load_settings()):
        if field.name in GROUPS:
            factory = field.default_factory
            choices[field.name] = None if factory is dataclasses.MISSING else _option(field.name, type(factory()))
    return choices


def _option(group: str, kind: type) -> str:
    name = option_of(group, kind)
    if name is None:
        raise ValueError(f"GROUPS: expected {kind} among the options of {group}, got {list(GROUPS[group].values())}")
    return name


def to_command(config: DictConfig, overrides: Sequence[str] = ()) -> Any:
    """The command's dataclass, its components made and checked. Raises ValueError for a value that one refuses.

    overrides: the words that `config` was composed with. A setting among them wins over a solver.prototxt, and over the
    settings that are kept with the run's classifier. For a command that takes these Hydra must still be initialised.
    """
    config = _with_home(config)
    given = {word.lstrip("+~").partition("=")[0] for word in overrides}
    iterations_stated = "solver.max_iter" in given or OmegaConf.select(config, "solver.prototxt") is not None
    if iterations_stated and "solver.min_epochs" not in given and OmegaConf.select(config, "solver.min_epochs"):
        config = copy.deepcopy(config)
        config.solver.min_epochs = 0.0  # a preset's
    if OmegaConf.select(config, "budget") is not None:
        stated = {"solver.max_iter", "solver.epochs", "solver.min_epochs", "solver.prototxt"} & given
        if stated or OmegaConf.select(config, "solver.prototxt") is not None:
            name = min(stated, default="solver.prototxt")
            raise ValueError(f"budget and {name}: expected one of them, got both; the budget sets the iterations")
    if OmegaConf.select(config, "solver.prototxt") is not None:
        config = _with_solver_prototxt(config, given)
    if "detect" not in given:
        for application, not_taken in NOT_TAKEN.items():
            if OmegaConf.get_type(config) is APPLICATIONS[application].load_settings():
                config = _with_kept_detect_settings(config, application, overrides, not_taken)
    _refuse_added(config)
    _refuse_extremes(config)
    for word in overrides:
        for path in _OBJECT.findall(word):
            allow(path)
    proposals = OmegaConf.select(config, "proposals")
    if isinstance(proposals, DictConfig):
        check_objects(OmegaConf.to_container(proposals))  # a preset of somebody else may name a class
    return OmegaConf.to_object(config)


def _with_home(config: DictConfig) -> DictConfig:
    """The configuration with the home folder for `~` in every text, also in lists: no text has another use for it."""

    config = copy.deepcopy(config)
    nodes: list[Any] = [config]
    while nodes:
        node = nodes.pop()
        keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
        for key in keys:
            if OmegaConf.is_missing(node, key):
                continue
            value = node[key]
            if OmegaConf.is_config(value):
                nodes.append(value)
            elif isinstance(value, str) and value.partition("/")[0] == "~":
                node[key] = str(Path(value).expanduser())
    return config


def _refuse_added(config: DictConfig, prefix: str = "") -> None:
    """Raise ValueError for a name that no dataclass declares. Hydra adds one for `+NAME=VALUE`."""
    kind = OmegaConf.get_type(config)
    known = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else None
    for name in map(str, config):
        if known is not None and name not in known:
            raise ValueError(f"{prefix}{name}: expected a setting, got an unknown name; remove +{prefix}{name}=...")
        node = None if OmegaConf.is_missing(config, name) else config[name]
        if isinstance(node, DictConfig):
            _refuse_added(node, f"{prefix}{name}.")


def _refuse_extremes(config: DictConfig) -> None:
    """Raise ValueError for a number that no setting can use: infinity, NaN, and an integer of 64 bits or more."""
    for name, value in flat_settings(config).items():
        for one in value if isinstance(value, ListConfig) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"{name}: expected a finite number, got {one}")
            if isinstance(one, int) and not -(2**63) <= one < 2**63:
                raise ValueError(f"{name}: expected an integer below 2^63, got {one}")


def _with_kept_detect_settings(
    config: DictConfig, application: str, words: Sequence[str], not_taken: Collection[str]
) -> DictConfig:
    """The configuration with the detection settings that the detector was evaluated with, below all that is set.

    The command is composed again with these settings as the defaults of its schema. So whatever a file or a word sets
    wins, also where it sets the default: after composition nobody can tell such a setting from one that is not set.
    """
    # Imported here, because it imports torch, and most commands do not need it.
    from detpipe.runs.detect_settings import kept_detect_settings
    from detpipe.runs.run_folder import RunFolder

    kept = kept_detect_settings(RunFolder(Path(config.run_dir)).classifier)
    usual = flat_settings(config.detect)
    idle = flat_settings(OmegaConf.create({name: value for name, value in kept.items() if name in not_taken}))
    left_out = [f"detect.{name}={value}" for name, value in idle.items() if value != usual[name]]
    if left_out:
        logger.warning("the run's own settings that this command can't use are left out: %s", " ".join(left_out))
    kept = {name: value for name, value in kept.items() if name not in not_taken}
    if not kept:
        return config
    try:
        _DEFAULTS[application] = {"detect": kept}
        detect = compose(application, list(words)).detect
    finally:
        del _DEFAULTS[application]
    found = flat_settings(detect)
    taken = [f"detect.{name}={value}" for name, value in found.items() if value != usual[name]]
    config = copy.deepcopy(config)
    config.detect = detect
    if taken:
        logger.info("using the run's own settings: %s", " ".join(taken))
    return config


def flat_settings(config: DictConfig) -> dict[str, Any]:
    """The values of a nested configuration by their full names: {"fast_rcnn.flip": False, ...}."""
    flat: dict[str, Any] = {}
    for name in map(str, config):
        value = None if OmegaConf.is_missing(config, name) else config[name]
        inner = flat_settings(value) if isinstance(value, DictConfig) else {"": value}
        flat |= {f"{name}.{key}".rstrip("."): one for key, one in inner.items()}
    return flat


def _with_solver_prototxt(config: DictConfig, given: Collection[str]) -> DictConfig:
    """The configuration with what the file says: over what presets and experiments say, under the command line."""

    path = Path(config.solver.prototxt)
    if "solver" in given:
        raise ValueError(f"solver=... and solver.prototxt={path}: expected one of them: both say all of a training")
    from detpipe.solver.solver_prototxt import solver_values  # imports protobuf, which few commands need

    def is_given(name: str) -> bool:
        # A mapping may have been given whole or by one of its keys: solver.lr={...}, solver.decay_mult.fc=0.
        full = f"solver.{name}"
        return any(f"{full}.".startswith(f"{one}.") or one.startswith(f"{full}.") for one in given)

    replaced = {name: value for name, value in flat_settings(config.solver).items() if is_given(name)}
    config = copy.deepcopy(config)
    for name, value in solver_values(path, replaced).items():
        if not is_given(name):
            OmegaConf.update(config, f"solver.{name}", value, merge=False)
    config.solver.prototxt = None  # it is read
    return config


@functools.cache
def schema_of(kind: type) -> DictConfig:
    """The configuration of a dataclass. Copy it before a change: it is kept, a copy takes a fraction of the time."""
    schema: DictConfig = OmegaConf.structured(kind)
    return schema


def _without_components(command: type) -> DictConfig:
    """The schema of a command whose components are still to be named: one's keys would mix with another's."""
    schema = copy.deepcopy(schema_of(command))
    for component in CHOSEN_WHOLE:
        if component in schema and not OmegaConf.is_missing(schema, component) and schema[component] is not None:
            schema[component] = MISSING
    return schema
