"""Proposals with their sources: as many as there are boxes, cut together."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.proposals.sourced import SourcedProposals
from detpipe.structures import Proposals

TWO = Proposals(np.array([[0, 0, 1, 1], [0, 0, 2, 2]], np.float32), np.array([2, 1], np.float32))
NONE = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def test_the_best_keep_their_sources():
    best = SourcedProposals(TWO, np.array([5, 6], np.uint8)).top(1)
    assert (len(best.proposals), best.sources.tolist()) == (1, [5])
    assert SourcedProposals(TWO, None).top(1).sources is None
    assert len(SourcedProposals(NONE, np.zeros(0, np.uint8)).top(3).proposals) == 0


@pytest.mark.parametrize("sources", [np.zeros(1, np.uint8), np.zeros(2, np.int64), np.zeros((2, 1), np.uint8)])
def test_other_shapes_and_types_are_refused(sources: np.ndarray):
    with pytest.raises(ValueError, match=r"expected \(2,\) uint8, got"):
        SourcedProposals(TWO, sources)
