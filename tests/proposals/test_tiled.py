"""Proposals on tiles: by a proposer that boxes what it sees, by hand; and the real methods through the table."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from detpipe.boxes import iou
from detpipe.datasets.image_file import AnyImage, as_image
from detpipe.proposals import methods
from detpipe.proposals.baselines import GroundTruthBoxes
from detpipe.proposals.methods import proposer_of
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.proposals.proposer import Proposer, scores_of_order
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.proposals.tiled import TiledProposals
from detpipe.structures import Image, Proposals
from detpipe.tiles import TilesConfig


@dataclass(kw_only=True)
class Seen(Proposer):
    """The box around each colour of the red channel, from the largest number to the smallest."""

    def __call__(self, image: AnyImage) -> Proposals:
        red = as_image(image)[..., 0]
        found = []
        for number in np.unique(red[red > 0])[::-1]:
            rows, columns = np.nonzero(red == number)
            found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        return Proposals(np.array(found, dtype=np.float32).reshape(-1, 4), scores_of_order(len(found)))


@dataclass(kw_only=True)
class Scored(Seen):
    """The same with comparable scores: the larger, the better."""

    COMPARABLE_SCORES = True

    def __call__(self, image: AnyImage) -> Proposals:
        boxes = super().__call__(image).boxes
        scores = (boxes[:, 2] - boxes[:, 0]) / np.float32(1000)
        order = np.argsort(-scores, kind="stable")
        return Proposals(boxes[order], scores[order])


@pytest.fixture(autouse=True)
def in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.METHODS, "seen", f"{__name__}:Seen")
    monkeypatch.setitem(methods.METHODS, "scored", f"{__name__}:Scored")


def scene(image_size: tuple[int, int], *objects: tuple[int, int, int, int]) -> Image:
    image = np.zeros((*image_size, 3), dtype=np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(objects, start=1):
        image[y1:y2, x1:x2, 0] = number
    return image


def test_boxes_of_tiles_by_hand() -> None:
    """Tiles from 0, 150 and 200. The best box of each tile first: in the order of the tiles, then the second best."""
    objects = [(10, 10, 20, 20), (30, 10, 40, 20), (180, 0, 210, 9), (390, 50, 395, 60)]
    tiled = TiledProposals(source={"method": "seen"}, size=200, overlap=50, whole=False)
    found = tiled(scene((100, 400), *objects))
    assert found.boxes.tolist() == [list(map(float, objects[index])) for index in (1, 2, 3, 0)]
    assert (np.diff(found.scores) < 0).all()


def test_comparable_scores_order_the_boxes_of_all_tiles() -> None:
    objects = [(10, 10, 20, 20), (30, 10, 50, 20), (390, 50, 395, 60)]
    tiled = TiledProposals(source={"method": "scored"}, size=200, overlap=50, whole=False)
    found = tiled(scene((100, 400), *objects))
    assert found.boxes.tolist() == [list(map(float, objects[index])) for index in (1, 0, 2)]
    assert found.scores.tolist() == pytest.approx([0.02, 0.01, 0.005])


def test_the_whole_image_shows_what_no_tile_does_and_equal_boxes_are_dropped() -> None:
    image = scene((100, 400), (50, 10, 350, 90), (10, 10, 20, 20))
    wide = [50, 10, 350, 90]
    with_whole = TiledProposals(source={"method": "seen"}, size=200, overlap=50)(image).boxes.tolist()
    assert wide in with_whole
    assert with_whole.count([10, 10, 20, 20]) == 1
    assert (
        wide not in TiledProposals(source={"method": "seen"}, size=200, overlap=50, whole=False)(image).boxes.tolist()
    )


def test_one_tile_gives_the_boxes_of_the_source() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    found, own = TiledProposals(size=80)(image), SelectiveSearch()(image)
    np.testing.assert_array_equal(found.boxes, own.boxes)
    np.testing.assert_array_equal(found.scores, own.scores)


def test_small_objects_are_proposed_on_tiles() -> None:
    """Squares of 12 pixels in an image of 900: selective search works at 288 pixels, where they are 4 wide."""
    image = np.full((900, 900, 3), 110, dtype=np.uint8)
    objects = [(x, y, x + 12, y + 12) for x in range(60, 900, 300) for y in range(60, 900, 300)]
    for x1, y1, x2, y2 in objects:
        image[y1:y2, x1:x2] = (250, 30, 30)
    boxes = np.array(objects, dtype=np.float32)
    assert iou(boxes, SelectiveSearch()(image).boxes).max() < 0.5
    assert iou(boxes, TiledProposals(size=300, whole=False)(image).boxes).max(axis=1).min() > 0.9


def test_an_empty_image_has_no_boxes_and_most_boxes_is_a_limit() -> None:
    tiled = TiledProposals(source={"method": "seen"}, size=50, max_proposals=2)
    assert len(tiled(scene((90, 90)))) == 0
    assert len(tiled(scene((90, 90), *((x, 0, x + 5, 5) for x in range(0, 80, 10))))) == 2


def test_a_description_makes_the_same_proposer() -> None:
    tiled = TiledProposals.around(SelectiveSearch(max_proposals=77, min_size=5), TilesConfig(size=90, overlap=10))
    made = proposer_of(tiled.describe())
    assert isinstance(made, TiledProposals)
    assert made.describe() == tiled.describe()
    assert made.max_proposals == 77
    assert made.source["min_size"] == 5
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made))(image).boxes, tiled(image).boxes)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"size": 0}, "proposals.size"),
        ({"size": 20}, "^tiles: "),
        ({"overlap": 500}, "^overlap: "),
        ({"duplicate_iou": 0.0}, "duplicate_iou"),
        ({"source": {"preset": "turbo"}}, "proposals.source"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TiledProposals(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"method": "nothing"}, "nothing"),
        ({"method": "selective_search", "colour": 1}, "colour"),
        ({"method": "ground_truth"}, "needs only pixels"),
    ],
)
def test_a_source_that_cannot_work_is_named_by_check(source: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TiledProposals(source=source).check()


def test_the_copy_of_a_network_is_used(tmp_path: Path) -> None:
    (tmp_path / "multibox").mkdir()
    tiled = TiledProposals.around(MultiBoxProposals(weights="elsewhere"), TilesConfig(size=90))
    kept = tiled.kept_in(tmp_path)
    assert isinstance(kept, TiledProposals)
    assert kept.source["weights"] == str(tmp_path / "multibox")
    assert not GroundTruthBoxes().from_pixels
