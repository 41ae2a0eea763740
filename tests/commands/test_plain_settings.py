"""Settings as plain data: there and back through JSON gives the same settings, for every command and option."""

from __future__ import annotations

import json
from typing import Any

import pytest

from detpipe.commands.groups import GROUPS, option_class
from detpipe.commands.plain_settings import from_plain, to_plain
from detpipe.commands.run_settings import Propose, Run
from detpipe.commands.stage_settings import Crop, Detect, Features
from detpipe.datasets.voc import VocSource
from detpipe.proposals.baselines import Gaussian
from detpipe.storage.dataclass_json import DataclassJsonError


def there_and_back(value: Any) -> Any:
    return from_plain(json.loads(json.dumps(to_plain(value))))


@pytest.mark.parametrize("command", [Propose, Run, Crop, Features, Detect])
def test_commands(command: Any) -> None:
    config = command(dataset=VocSource(root="somewhere"), seed=3)
    assert there_and_back(config) == config
    assert type(there_and_back(config).dataset) is VocSource


def test_a_component_of_another_class() -> None:
    config = Propose(proposals=Gaussian(max_proposals=7))
    assert there_and_back(config).proposals == Gaussian(max_proposals=7)


def test_tiles_are_set_once() -> None:
    config = Detect(tiles=500)
    assert there_and_back(config) == config


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (group, option)
        for group in GROUPS
        if group != "dataset"
        for option in getattr(GROUPS[group], "rows", GROUPS[group])
    ],
)
def test_options(group: str, option: str) -> None:
    try:
        value = option_class(group, option)()
    except (TypeError, ValueError, ImportError):
        pytest.skip("needs an argument")
    assert there_and_back(value) == value


def test_a_wrong_type_is_named() -> None:
    plain = to_plain(Propose())
    plain["fields"]["workers"] = "many"
    with pytest.raises(DataclassJsonError, match="int"):
        from_plain(plain)
