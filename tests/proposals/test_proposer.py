"""The interface: ranking, images and sources, settings that go through OmegaConf and pickle."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detpipe.proposals.baselines import Gaussian, GroundTruthBoxes, SlidingWindow, Uniform
from detpipe.proposals.edge_boxes import EdgeBoxes
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.proposer import Proposer, SourcedProposals, ranked, scores_of_order
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.structures import ImageRecord, Proposals

PROPOSERS = [SelectiveSearch, EdgeBoxes, Gaussian, Uniform, SlidingWindow, GroundTruthBoxes, ImportedProposals]


def test_ranked_clips_drops_and_sorts():
    boxes = np.array([[0, 0, 4, 4], [-5, -5, 4, 4], [8, 8, 30, 30], [20, 0, 30, 4], [1, 1, 1, 9]], np.float32)
    scores = np.array([0.2, 0.9, 0.5, 1.0, 1.0], np.float32)
    found = ranked(boxes, scores, (10, 12), None)
    # The second becomes the first box, and is the better of the two; the last two have no area inside.
    assert found.boxes.tolist() == [[0, 0, 4, 4], [8, 8, 12, 10]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])


def test_ranked_keeps_the_best_and_takes_nothing():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], np.float32)
    assert ranked(boxes, np.array([1, 3, 2], np.float32), (9, 9), 2).boxes[:, 2].tolist() == [2, 3]
    empty = ranked(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (9, 9), 5)
    assert empty.boxes.shape == (0, 4)


@given(st.permutations(range(6)))
def test_ranked_does_not_depend_on_the_order_given(order: list[int]):
    boxes = np.array([[i % 3, 0, 5 + i % 2, 5] for i in range(6)], np.float32)
    scores = np.array([1, 1, 1, 0.5, 0.5, 0.5], np.float32)
    first, other = ranked(boxes, scores, (9, 9), 4), ranked(boxes[order], scores[order], (9, 9), 4)
    assert first.boxes.tobytes() == other.boxes.tobytes()
    assert first.scores.tobytes() == other.scores.tobytes()


def test_scores_of_order():
    assert scores_of_order(4).tolist() == [1, 0.75, 0.5, 0.25]
    assert scores_of_order(0).shape == (0,)
    assert (np.diff(scores_of_order(100_000)) < 0).all()


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_settings_go_through_omegaconf_and_pickle(proposer: type[Proposer]):
    config = OmegaConf.merge(OmegaConf.structured(proposer), {"max_proposals": 7, "seed": 3})
    made = OmegaConf.to_object(config)
    assert isinstance(made, proposer)
    assert (made.max_proposals, made.seed) == (7, 3)
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_max_proposals_is_checked(proposer: type[Proposer]):
    with pytest.raises(ValueError, match="max_proposals"):
        proposer(max_proposals=0)


def test_propose_asks_the_pixels():
    class Whole(Proposer):
        def __call__(self, image):
            height, width = image.shape[:2]
            return ranked(np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32), (height, width), None)

    image = np.zeros((3, 5, 3), np.uint8)
    whole = Whole()
    whole.check()
    assert whole.propose(image, ImageRecord("a", Path("a.jpg"), (3, 5)), None).boxes.tolist() == [[0, 0, 5, 3]]


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
