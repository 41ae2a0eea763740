"""The table of methods: what a manifest says makes the same proposer again."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from detpipe.proposals.methods import METHODS, method, method_name, proposer_of
from detpipe.proposals.proposer import Proposer, ranked
from detpipe.structures import Image, Proposals


@pytest.mark.parametrize("name", METHODS)
def test_a_description_makes_the_proposer_again(name: str):
    made = method(name)(max_proposals=7, seed=3)
    description = json.loads(json.dumps(made.describe()))
    assert method_name(description) == name
    assert proposer_of(description) == made


def test_who_needs_more_than_pixels():
    needing = {name for name in METHODS if not method(name)().from_pixels}
    assert needing == {"ground_truth", "import"}


@dataclass(kw_only=True)
class Mine(Proposer):
    """A person's own."""

    def __call__(self, image: Image) -> Proposals:
        return ranked(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), image.shape[:2], None)


def test_strangers():
    @dataclass(kw_only=True)
    class Local(Mine):
        """Of no module's top level, so nothing can find it again."""

    assert proposer_of(Mine(seed=3).describe()) == Mine(seed=3)
    assert method_name(Mine().describe()) == f"{__name__}:Mine"
    assert proposer_of(Local().describe()) is None
    assert method_name(Local().describe()) == "Local"
    with pytest.raises(ValueError, match=r"uniform: expected the settings of this version.*lowest"):
        proposer_of({"method": "Uniform", "lowest": 3})
