"""Keeps what Hydra composes from the same files and classes, which is most of the time of a small command.

Hydra reads the files of each group that a command has, and merges them; then it applies `setting=value`. The first part
depends only on the command and on the words `group=option`. It is done once for each, and copied.
"""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from unittest import mock

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig
from omegaconf.base import Metadata, Node

from detpipe import config
from detpipe.commands.groups import GROUPS, option_class

FIXED = {"pkg", "structured", config.TableSource.scheme()}
"""The kinds of sources that stay the same while tests run, if the classes do: not a folder of a user's presets."""


@dataclass
class Kept:
    """What was composed: the list of configurations, what they came from, and their merge once it is made."""

    defaults: DefaultsList
    origin: list[object]
    merged: DictConfig | None = None


@dataclass
class Compositions:
    """All that was composed in this process."""

    by_words: dict[tuple[object, ...], Kept] = field(default_factory=dict)
    by_list: dict[int, Kept] = field(default_factory=dict)

    def defaults_list(
        self, repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **settings: bool
    ) -> DefaultsList:
        """In place of Hydra's `create_defaults_list`."""
        if config._DEFAULTS or any(source.scheme() not in FIXED for source in repo.get_sources()):
            return hydras_list(repo, config_name, overrides_list, **settings)
        chosen, values = [], []
        for one in overrides_list:
            if not one.is_sweep_override():
                is_choice = repo.group_exists(one.key_or_group) and not isinstance(one.value(), dict)
                (chosen if is_choice else values).append(one)
        key = (config_name, *(one.input_line for one in chosen), *settings.items())
        kept = self.by_words.get(key)
        if kept is None or kept.origin != _origin(kept.defaults.defaults):
            made = hydras_list(repo, config_name, overrides_list, **settings)
            kept = self.by_words[key] = Kept(made, _origin(made.defaults))
            self.by_list[id(made.defaults)] = kept
        return replace(kept.defaults, config_overrides=values)

    def merged(self, loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        """In place of Hydra's `_compose_config_from_defaults_list`."""
        kept = self.by_list.get(id(defaults))
        if kept is None:
            return hydras_merge(loader, defaults, repo)
        if kept.merged is None:
            kept.merged = hydras_merge(loader, defaults, repo)
        return copy.deepcopy(kept.merged)


omegaconfs_copies = {one: one.__deepcopy__ for one in (DictConfig, ListConfig)}
hydras_list, hydras_merge = config_loader_impl.create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list


def _origin(defaults: Sequence[ResultDefault]) -> list[object]:
    """The rows and classes behind a list of configurations, which a test may replace."""
    found: list[object] = []
    for one in defaults:
        group, _, name = str(one.config_path).rpartition("/")
        if group in ("", "schema") and name in config.APPLICATIONS:
            found += [config.APPLICATIONS[name], config.APPLICATIONS[name].load_settings()]
        elif name in GROUPS.get(group, ()):
            found.append(option_class(group, name))
    return found


def _copied_metadata(metadata: Metadata, _: object = None) -> Metadata:
    """A copy of what OmegaConf notes of each value. Types and keys do not change; `deepcopy` looks into each."""
    one = object.__new__(type(metadata))
    one.__dict__.update(metadata.__dict__)
    one.flags = dict(metadata.flags or {})
    one.resolver_cache = defaultdict(dict, {name: dict(known) for name, known in metadata.resolver_cache.items()})
    return one


def _copied(node: Node, parent: Node | None) -> Node:
    """A copy of a node and of all nodes below. OmegaConf's own makes and checks a new node for each one first."""
    one = object.__new__(type(node))
    own = one.__dict__
    own.update(node.__dict__, _metadata=_copied_metadata(node._metadata), _parent=parent, _flags_cache=None)
    content = own.get("_content")
    if isinstance(content, dict):
        own["_content"] = {key: _copied(child, one) for key, child in content.items()}
    elif isinstance(content, list):
        own["_content"] = [_copied(child, one) for child in content]
    elif isinstance(content, Node):  # of a union
        own["_content"] = _copied(content, one)
    return one


def _deepcopy(node: Node, _: object) -> Node:
    """In place of OmegaConf's `__deepcopy__`: the copy has the same parent."""
    return _copied(node, node.__dict__["_parent"])


@contextlib.contextmanager
def kept_compositions() -> Iterator[None]:
    """For the block, compose the same words once."""
    compositions = Compositions()

    def merged(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        return compositions.merged(loader, defaults, repo)

    with (
        mock.patch.object(config_loader_impl, "create_defaults_list", compositions.defaults_list),
        mock.patch.object(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged),
        mock.patch.object(Metadata, "__deepcopy__", _copied_metadata, create=True),
        mock.patch.object(DictConfig, "__deepcopy__", _deepcopy),
        mock.patch.object(ListConfig, "__deepcopy__", _deepcopy),
        # Hydra copies the repository because it gives the copy other sources; it changes none of them.
        mock.patch.object(ConfigRepository, "__deepcopy__", lambda repository, _: copy.copy(repository), create=True),
    ):
        yield
