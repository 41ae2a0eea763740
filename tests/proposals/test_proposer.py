"""The protocol: ranking, random numbers per image, settings that go through OmegaConf and pickle."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detpipe.proposals.baselines import Uniform
from detpipe.proposals.edge_boxes import EdgeBoxes
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.gaussian import Gaussian
from detpipe.proposals.ground_truth import GroundTruthBoxes
from detpipe.proposals.proposer import Proposer, check_image, generator_for, ranked, scores_of_order
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.proposals.sliding_window import SlidingWindow
from detpipe.structures import ImageRecord

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


def test_a_name_that_is_no_utf8_has_a_generator():
    numbers = {name: generator_for(3, name).random() for name in ("caf\udce9", "caf\udce8", "café")}
    assert len(set(numbers.values())) == 3
    assert generator_for(3, "caf\udce9").random() == numbers["caf\udce9"]


def test_generator_is_the_same_in_another_process():
    here = generator_for(7, "image 4").integers(2**62)
    code = "from detpipe.proposals.proposer import generator_for as g; print(g(7, 'image 4').integers(2**62))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(there) == here
    assert generator_for(8, "image 4").integers(2**62) != here
    assert generator_for(7, "image 5").integers(2**62) != here


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_wrong_images_are_named(wrong: np.ndarray):
    with pytest.raises(ValueError, match="uint8"):
        check_image(wrong)


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
