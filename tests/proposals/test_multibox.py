"""MultiBox as a proposer: its boxes lie in the image, views join, and settings alone cross process borders."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from detpipe.boxes import iou
from detpipe.heads.multibox.folder import DESCRIPTION, save_multibox
from detpipe.network.network_folder import WEIGHTS, NetworkFolderError
from detpipe.network.scaled_image import Scaling
from detpipe.parallel import ordered_map
from detpipe.proposals.methods import proposer_of
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.structures import Image
from tests import drawn
from tests.heads.multibox import tiny as tiny_multibox

IMAGE = drawn.draw(0)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_multibox.saved(tmp_path / "made")


def proposer(folder: Path, **settings: object) -> MultiBoxProposals:
    return MultiBoxProposals(weights=str(folder), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("image", [IMAGE, IMAGE[:1], IMAGE[:, :3], IMAGE[:1, :1], np.tile(IMAGE, (1, 9, 1))])
def test_boxes_lie_in_the_image(image: Image, folder: Path) -> None:
    found = proposer(folder, flip=True, scales=[40, 64])(image)
    height, width = image.shape[:2]
    assert 0 < len(found) <= 200
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [width, height, width, height]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert ((found.scores > 0) & (found.scores < 1)).all()


def test_no_pixels(folder: Path) -> None:
    with pytest.raises(ValueError, match="with H, W > 0"):
        proposer(folder)(IMAGE[:0])


@pytest.mark.parametrize(("count", "at_most"), [(7, 7), (None, 160)])
def test_how_many_are_kept(count: int | None, at_most: int, folder: Path) -> None:
    """64 x 85 is padded to 64 x 128: 8 x 16 cells and 4 x 8, of which some look at the padding only."""
    found = proposer(folder, max_proposals=count, nms_iou=1)(IMAGE)
    assert len(found) <= at_most
    assert len(found) == 7 or count is None
    assert len(found) > 100 or count is not None


def test_near_duplicates_are_dropped(folder: Path) -> None:
    for settings in ({}, {"flip": True, "scales": [40, 64]}):
        boxes = proposer(folder, nms_iou=0.5, **settings)(IMAGE).boxes
        overlaps = iou(boxes, boxes)
        assert (overlaps[~np.eye(len(boxes), dtype=bool)] < 0.51).all()


def test_the_same_again(folder: Path) -> None:
    one = proposer(folder)
    first, other = one(IMAGE), one(drawn.draw(1)[0])
    again = one(IMAGE)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert not np.array_equal(first.boxes, other.boxes)


def test_threads_share_the_network_and_find_the_same_bits(folder: Path) -> None:
    images = [drawn.draw(number)[0] for number in range(6)]
    one, threads = proposer(folder), torch.get_num_threads()
    alone = [one(image) for image in images]
    shared = list(ordered_map(proposer(folder), images, workers=3, max_threads=one.max_threads))
    assert torch.get_num_threads() == threads
    for first, second in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(first.boxes, second.boxes)
        np.testing.assert_array_equal(first.scores, second.scores)


def test_a_sure_prior_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    """No prediction depends on the image: the boxes are the priors, of the input of 64 x 85, and all as sure."""
    spec = tiny_multibox.spec(tmp_path / "net")
    network = tiny_multibox.network(spec)
    for layer in network.predictor.outputs:
        torch.nn.init.zeros_(layer.weight)
    network.predictor.calibration[0] = torch.tensor([1.0, 9.0])  # the squares of 30, at each cell of 8
    (tmp_path / "made").mkdir()
    save_multibox(tmp_path / "made", network, spec)
    found = proposer(tmp_path / "made", max_proposals=1000, nms_iou=1)(IMAGE)
    scaling = Scaling.to_side(drawn.IMAGE_SIZE, 64, 640)
    assert scaling.input_size == (64, 85)
    centre = np.array([[8 * 4 + 4, 8 * 3 + 4] * 2], dtype=np.float32)
    prior = scaling.to_image(centre + np.array([[-15, -15, 15, 15]], dtype=np.float32))
    best = iou(found.boxes, prior)[:, 0]
    assert best.max() > 0.999
    assert found.scores[best.argmax()] == found.scores[0]
    assert len(np.unique(found.scores)) == 2


def test_views_are_joined(folder: Path) -> None:
    """Each of the single views' best box is found by all of them together, or one that is as good and near."""
    views = [{"scales": [40]}, {"scales": [64]}, {}]
    single = [proposer(folder, **one)(IMAGE) for one in views]  # type: ignore[arg-type]
    np.testing.assert_array_equal(single[1].boxes, single[2].boxes)  # no scales: training's last
    both = proposer(folder, scales=[40, 64])(IMAGE)
    assert both.scores[0] == max(one.scores[0] for one in single)
    for one in single:
        overlaps = iou(one.boxes[:1], both.boxes)[0]
        assert overlaps.max() >= 0.69
    assert not np.array_equal(both.boxes, single[0].boxes)


def test_flip_sees_the_mirrored_image(folder: Path) -> None:
    """An image and its mirror image have the same boxes, mirrored: all in one of the two views of the other one."""
    one = proposer(folder, flip=True, nms_iou=1, max_proposals=None)
    plain, mirrored = one(IMAGE), one(np.ascontiguousarray(IMAGE[:, ::-1]))
    assert len(plain) == len(mirrored)
    back = mirrored.boxes[:, [2, 1, 0, 3]] * np.float32([-1, 1, -1, 1]) + np.float32([160, 0, 160, 0])
    assert iou(plain.boxes, back).max(axis=1).min() > 0.99
    assert len(plain) > len(proposer(folder, nms_iou=1, max_proposals=None)(IMAGE))


def test_it_pickles_without_its_network(folder: Path) -> None:
    one = proposer(folder, scales=[40])
    before = len(pickle.dumps(one))
    found = one(IMAGE)
    assert len(pickle.dumps(one)) == before < 1000
    there = pickle.loads(pickle.dumps(one))
    assert there == one
    np.testing.assert_array_equal(there(IMAGE).boxes, found.boxes)


def test_it_is_what_it_says_it_is(folder: Path) -> None:
    one = proposer(folder, scales=[40], flip=True)
    one(IMAGE)
    assert proposer_of(one.describe()) == one


def test_its_inputs_are_the_network_s_files(folder: Path, tmp_path: Path) -> None:
    inputs = proposer(folder).inputs()
    assert set(inputs) == {WEIGHTS, DESCRIPTION}
    other = proposer(tiny_multibox.saved(tmp_path / "other", seed=1)).inputs()
    assert inputs[WEIGHTS] != other[WEIGHTS]


def test_check(folder: Path, tmp_path: Path) -> None:
    proposer(folder).check()
    with pytest.raises(ValueError, match=r"got none; give proposals\.weights=DIR"):
        MultiBoxProposals().check()
    with pytest.raises(NetworkFolderError, match=r"multibox\.json.*detpipe train-multibox"):
        proposer(tmp_path / "nowhere").check()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"nms_iou": 1.1}, "nms_iou in"),
        ({"nms_iou": float("nan")}, "nms_iou in"),
        ({"scales": [64, 31]}, "at least 32 pixels"),
        ({"max_proposals": 0}, "max_proposals"),
    ],
)
def test_wrong_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MultiBoxProposals(**settings)  # type: ignore[arg-type]
