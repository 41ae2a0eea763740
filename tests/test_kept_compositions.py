"""Settings that were composed once are those that Hydra composes, and nobody shares them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.base import Metadata, Node

from detpipe import config
from detpipe.heads.table import HEADS
from detpipe.proposals.baselines import Uniform
from detpipe.proposals.methods import METHODS
from tests import kept_compositions


def composed(command: str, words: Sequence[str] = ()) -> DictConfig:
    config.register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        return compose(command, [*words], return_hydra_config=True)


def by_hydra(command: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    with monkeypatch.context() as patch:
        patch.setattr(config_loader_impl, "create_defaults_list", kept_compositions.hydras_list)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", kept_compositions.hydras_merge)
        return composed(command, words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("propose", []),
        ("run", ["experiment=rcnn_2014", "solver.max_iter=3", "head.ridge=7", "hydra/job_logging=terminal"]),
        ("train-cls", ["head=fast_rcnn", "solver=sgd", "+solver.decay_mult={a:1}", "solver.lr={power:2}"]),
    ],
)
def test_they_are_hydras(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = by_hydra(command, words, monkeypatch)
    for _ in range(2):
        found = composed(command, words)
        assert found == wanted
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(wanted)
        assert OmegaConf.get_type(found) is OmegaConf.get_type(wanted)
        assert OmegaConf.is_struct(found)
        found.seed = 5


def test_a_copy_is_that_of_omegaconf(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"a": {"b": [1, {"c": None}, "${a.d}"], "d": "???"}, "e": b"x", "f": Path("g")}
    nodes = OmegaConf.create(plain, flags={"readonly": True})
    nodes._metadata.resolver_cache["own"]["key"] = 1
    found, part_found = copy.deepcopy(nodes), copy.deepcopy(nodes.a)
    with monkeypatch.context() as patch:
        patch.delattr(Metadata, "__deepcopy__")
        for kind, copied in kept_compositions.omegaconfs_copies.items():
            patch.setattr(kind, "__deepcopy__", copied)
        wanted, part = copy.deepcopy(nodes), copy.deepcopy(nodes.a)
    for one, other in ((found, wanted), (part_found, part)):
        assert states(one) == states(other)
        assert one._get_parent() is other._get_parent()
    assert not {id(node) for node in below(nodes)} & {id(node) for node in below(found)}
    assert all(child._get_parent() is found.a for child in (found.a._get_node("b"), found.a._get_node("d")))
    OmegaConf.set_readonly(found, False)
    found.a.d = 3
    assert (found.a.b[2], OmegaConf.is_missing(nodes.a, "d")) == (3, True)


def below(node: Node) -> Iterator[Node]:
    """A node and all below it, and what OmegaConf notes of each."""
    yield node
    yield node._metadata
    content = node.__dict__.get("_content")
    for child in content.values() if isinstance(content, dict) else content or ():
        yield from below(child)


def states(node: Node) -> list[dict[str, object]]:
    """What each of them holds, without the nodes, and without what OmegaConf finds again."""
    left_out = ("_content", "_parent", "_flags_cache")
    return [
        {"type": type(one)} | {name: value for name, value in vars(one).items() if name not in left_out}
        for one in below(node)
    ]


def test_values_are_those_of_the_words() -> None:
    assert composed("train-cls", ["seed=3", "head.ridge=2"]).seed == 3
    assert composed("train-cls", ["seed=4"]).seed == 4
    assert composed("train-cls", ["head=svm", "seed=4"]).head != composed("train-cls", ["head=knn"]).head
    with pytest.raises(HydraException, match="head"):
        composed("train-cls", ["head=none_such"])


@dataclass(kw_only=True)
class Own(Uniform):
    """A proposer under a word that exists."""

    more: int = 1


def test_another_class_under_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "more" not in composed("propose", ["proposals=uniform"]).proposals
    monkeypatch.setitem(METHODS, "uniform", f"{__name__}:Own")
    assert composed("propose", ["proposals=uniform"]).proposals.more == 1
    monkeypatch.undo()
    assert "more" not in composed("propose", ["proposals=uniform"]).proposals


def test_a_word_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "own", HEADS["svm"])
    assert composed("train-cls", ["head=own"]).head == composed("train-cls", ["head=svm"]).head
    monkeypatch.undo()
    with pytest.raises(HydraException, match="own"):
        composed("train-cls", ["head=own"])


def test_a_users_preset_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    for ridge in (2.0, 3.0):
        (tmp_path / "head" / "mine.yaml").write_text(f"defaults: [svm, _self_]\nridge: {ridge}\n")
        assert composed("train-cls", [f"hydra.searchpath=[file://{tmp_path}]", "head=mine"]).head.ridge == ridge
