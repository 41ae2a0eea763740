"""Fusion: lists by turns, near-duplicates once, each box with its source."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.boxes import iou
from detpipe.proposals.baselines import Gaussian, Uniform
from detpipe.proposals.fusion import Fused, join
from detpipe.proposals.methods import proposer_of
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.proposals.proposals_db import parse_proposals, propose_image
from detpipe.structures import ImageRecord, Proposals
from tests import drawn
from tests.heads.multibox import tiny as tiny_multibox


def of(*boxes: list[float]) -> Proposals:
    n = len(boxes)
    return Proposals(np.array(boxes, np.float32).reshape(-1, 4), np.linspace(9, 1, n, dtype=np.float32))


A = of([0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 30, 30])
B = of([50, 50, 60, 60], [50, 50, 70, 70])


def test_lists_take_turns_and_the_rest_follows():
    found = join([A, B], duplicate_iou=0.9, max_proposals=None)
    assert found.proposals.boxes[:, 2].tolist() == [10, 60, 20, 70, 30]
    assert found.sources.tolist() == [0, 1, 0, 1, 0]
    assert found.proposals.scores.tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert join([B, A], duplicate_iou=0.9, max_proposals=None).proposals.boxes[:, 2].tolist() == [60, 10, 70, 20, 30]


def test_the_best_are_kept():
    found = join([A, B], duplicate_iou=0.9, max_proposals=3)
    assert found.proposals.boxes[:, 2].tolist() == [10, 60, 20]
    assert found.sources.tolist() == [0, 1, 0]


def test_of_near_duplicates_the_better_ranked_stays():
    near = of([50, 50, 90, 90], [0, 0, 10, 9.5], [0, 0, 20, 20])
    loose = join([near, A], duplicate_iou=0.9, max_proposals=None)
    # 9.5 / 10 = 0.95: the second of `near` goes for the first of A; 20 x 20 has one rank less in A.
    assert loose.proposals.boxes.tolist() == [[50, 50, 90, 90], [0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 30, 30]]
    assert loose.sources.tolist() == [0, 1, 1, 1]
    strict = join([near, A], duplicate_iou=1, max_proposals=None)
    assert len(strict.proposals) == 5  # of the equal ones one goes all the same


@pytest.mark.parametrize("lists", [[], [of()], [of(), of()]])
def test_nothing_gives_nothing(lists: list[Proposals]):
    found = join(lists, duplicate_iou=0.9, max_proposals=10)
    assert len(found.proposals) == len(found.sources) == 0
    assert len(join([*lists, A], duplicate_iou=0.9, max_proposals=10).proposals) == 3


@given(st.lists(st.integers(0, 30), max_size=4), st.integers(0, 2**32), st.sampled_from([0.3, 0.7, 0.9, 1.0]))
def test_what_goes_has_a_better_near_duplicate_that_stays(lengths: list[int], seed: int, bound: float):
    generator = np.random.default_rng(seed)
    lists = []
    for n in lengths:
        corners = generator.integers(0, 12, (n, 2))
        lists.append(of(*np.concatenate([corners, corners + generator.integers(1, 6, (n, 2))], 1).tolist()))
    found = join(lists, duplicate_iou=bound, max_proposals=None)
    kept = found.proposals.boxes
    assert (np.triu(iou(kept, kept), 1) <= np.float32(bound)).all()
    assert len(np.unique(kept, axis=0)) == len(kept)
    by_place = sorted(
        (place * len(lists) + number, tuple(box))
        for number, one in enumerate(lists)
        for place, box in enumerate(one.boxes.tolist())
    )
    place_of = {}
    for place, box in by_place:
        place_of.setdefault(box, place)
    places = [place_of[tuple(box)] for box in kept.tolist()]
    assert places == sorted(places)
    for place, box in by_place:
        better = kept[[own <= place for own in places]]
        overlaps = iou(np.array([box], np.float32), better)
        assert overlaps.max(initial=0) > np.float32(bound) or list(box) in better.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": ["uniform", "uniform"]}, "each once"),
        ({"sources": ["fuse"]}, "none of them 'fuse'"),
        ({"sources": [str(number) for number in range(257)]}, "at most 256"),
        ({"budgets": [1, 0]}, "budgets from 1"),
        ({"duplicate_iou": 0}, "duplicate_iou above 0"),
        ({"max_proposals": 0}, "max_proposals"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Fused(**settings)


@pytest.mark.parametrize(
    ("fused", "message"),
    [
        (Fused(), "expected sources, got none"),
        (Fused(sources=["rpn"]), r"expected a method \(edge_boxes, .*uniform\) or the folder.*'rpn'"),
        (Fused(sources=["uniform"], budgets=[1, 2]), "a budget for each"),
        (Fused(sources=["edge_boxes"]), "proposals.model"),
    ],
)
def test_check_names_what_lacks(fused: Fused, message: str):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fused.check()


@pytest.fixture
def image(tmp_path: Path) -> ImageRecord:
    drawn.write_jpeg(tmp_path / "a.jpg", drawn.draw(3)[0])
    return ImageRecord("a", tmp_path / "a.jpg", drawn.IMAGE_SIZE)


def test_methods_are_joined_with_their_budgets_and_seed(image: ImageRecord):
    fused = Fused(sources=["uniform", "gaussian"], budgets=[30, 20], duplicate_iou=1, seed=4)
    fused.check()
    stored = parse_proposals(propose_image(fused, image, None))
    assert stored.sources is not None
    assert np.bincount(stored.sources).tolist() == [30, 20]
    for number, one in enumerate((Uniform(max_proposals=30, seed=4), Gaussian(max_proposals=20, seed=4))):
        own = parse_proposals(propose_image(one, image, None)).proposals.boxes
        assert stored.proposals.boxes[stored.sources == number].tolist() == own.tolist()


def test_it_travels_to_workers_and_gives_the_same(image: ImageRecord):
    fused = Fused(sources=["sliding_window", "uniform"], max_proposals=100)
    fused.check()
    assert propose_image(pickle.loads(pickle.dumps(fused)), image, None) == propose_image(fused, image, None)


def test_from_pixels(image: ImageRecord):
    fused = Fused(sources=["sliding_window", "uniform"], max_proposals=50)
    assert fused.from_pixels
    assert len(fused(drawn.draw(0)[0])) == 50
    assert not Fused(sources=["uniform", "ground_truth"]).from_pixels
    with pytest.raises(ValueError, match="pixels alone"):
        Fused(sources=["ground_truth"])(drawn.draw(0)[0])


def test_inputs_follow_the_settings_of_the_methods():
    one, two = Fused(sources=["uniform"]), Fused(sources=["uniform"], budgets=[7])
    assert one.inputs().keys() == {"source uniform"}
    assert one.inputs() != two.inputs()


def test_a_fusion_is_made_again_from_its_description():
    described = Fused(sources=["uniform", "gaussian"]).describe()
    assert proposer_of(described) == Fused(sources=["uniform", "gaussian"])
    own = Fused(sources=["uniform", "multibox"], weights="somewhere")
    assert own.describe()["weights"] == "somewhere"
    assert proposer_of(own.describe()) == own


def test_a_network_among_its_sources(tmp_path: Path, image: ImageRecord):
    folder = tiny_multibox.saved(tmp_path / "network")
    fused = Fused(sources=["uniform", "multibox"], budgets=[20, 10], duplicate_iou=1, weights=str(folder))
    fused.check()
    assert fused.from_pixels
    assert fused.inputs().keys() == {"source uniform", "source weights.safetensors", "source multibox.json"}
    stored = parse_proposals(propose_image(fused, image, None))
    assert stored.sources is not None
    own = parse_proposals(
        propose_image(MultiBoxProposals(weights=str(folder), max_proposals=10), image, None)
    ).proposals.boxes
    assert stored.proposals.boxes[stored.sources == 1].tolist() == own.tolist()
    fused.keep(tmp_path)
    again = fused.kept_in(tmp_path)
    assert isinstance(again, Fused)
    assert again.settings == {"multibox": {"weights": str(tmp_path / "multibox")}}
    assert again(drawn.draw(4)[0]).boxes.tolist() == fused(drawn.draw(4)[0]).boxes.tolist()
    assert fused.kept_in(tmp_path / "nowhere") == fused


def test_a_network_that_is_not_given_is_asked_for():
    with pytest.raises(ValueError, match="expected the folder of a trained network, got none"):
        Fused(sources=["uniform", "multibox"]).check()
