"""Scores on tiles: a scorer that reports what its window shows finds each object of the image once, and whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detpipe.backbone.settings import BackboneConfig
from detpipe.boxes import area, clip, decode, encode, iou
from detpipe.classify.detect import ScoredRegions, scored_regions, select_detections
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.fast_rcnn.scorer import FastRcnnScorer, fast_rcnn_scorer, tiles_of
from detpipe.classify.fast_rcnn.tiled_scorer import TiledScorer, of_whole_regions
from detpipe.classify.settings import DetectConfig, FastRcnnScoringConfig
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.structures import Float32Array, Image
from detpipe.tiles import TilesConfig
from tests.classify.fast_rcnn.test_scorer import oracle, painted, scorer, trained_like, with_decoys
from tests.classify.multibox_fast_rcnn import tiny as tiny_multibox_fast_rcnn

CPU = torch.device("cpu")
NOTHING = np.zeros((0, 4), dtype=np.float32)
DETECT = DetectConfig(score_floor=0.05, nms_iou=0.5, max_detections=200)


class Finder:
    """Proposes the boxes around the colours of its image (K = 1), each with a score of 1 - 1 / its number of pixels.

    The red channel holds the object's number, from 1. Boxes are regions that box regression moves by an eighth.
    """

    network = nn.Identity()

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        for image, given_boxes in images:
            assert not len(given_boxes)
            found, scores = [], []
            for number in np.unique(image[..., 0][image[..., 0] > 0]):
                rows, columns = np.nonzero(image[..., 0] == number)
                found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
                scores.append(1 - 1 / (1 + len(rows)))
            boxes = np.array(found, dtype=np.float32).reshape(-1, 4)
            regions = boxes + (boxes[:, [2, 3, 2, 3]] - boxes[:, [0, 1, 0, 1]]) / np.float32(8)
            probabilities = np.array([1 - np.array(scores), scores], dtype=np.float32).T.reshape(-1, 2)
            yield ScoredRegions(probabilities, encode(regions, boxes)[:, None], regions)


def scene(image_size: tuple[int, int], objects: Iterable[tuple[int, int, int, int]]) -> Image:
    image = np.zeros((*image_size, 3), dtype=np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(objects, start=1):
        image[y1:y2, x1:x2, 0] = number
    return image


def found_in(images: Iterable[Image], tiles: TilesConfig) -> list[list[list[float]]]:
    tiled = TiledScorer(Finder(), tiles, proposes=True, score_floor=DETECT.score_floor)
    results = []
    for boxes, scored, size in scored_regions(tiled, ((image, NOTHING) for image in images)):
        found = select_detections(boxes, scored, size, DETECT).boxes
        results.append(sorted(found.round(2).tolist()))
    return results


def test_objects_in_and_across_tiles_are_found_once_and_whole() -> None:
    """Tiles of 200 with 80: x from 0, 120 and 240 to 440. One object per image ends at a border, or crosses some."""
    tiles = TilesConfig(size=200, overlap=80)
    across = [
        (10, 10, 40, 40),  # in one tile
        (190, 20, 210, 60),  # cut by the first
        (140, 100, 190, 150),  # in both
        (100, 50, 300, 120),  # larger than the overlap: the whole image shows it
        (0, 0, 440, 199),  # larger than a tile
        (180, 0, 200, 30),  # ends where the first tile ends
    ]
    images = [scene((200, 440), [one]) for one in across]
    assert found_in(images, tiles) == [[list(map(float, one))] for one in across]


def test_many_objects_of_one_image_by_hand() -> None:
    objects = [(x, y, x + 30, y + 25) for x in range(5, 600, 45) for y in range(3, 400, 40)]
    image = scene((430, 640), objects)
    (found,) = found_in([image], TilesConfig(size=150, overlap=50))
    assert found == sorted([float(one) for one in box] for box in objects)


def test_without_the_whole_image_a_large_object_is_found_in_parts() -> None:
    ((*found,),) = found_in([scene((100, 300), [(20, 20, 280, 60)])], TilesConfig(size=100, overlap=20, whole=False))
    assert len(found) == 4
    assert all(box[3] - box[1] == pytest.approx(40, abs=0.1) for box in found)


@settings(max_examples=40, deadline=None)
@given(st.integers(33, 300), st.integers(33, 300), st.integers(32, 150), st.data())
def test_any_object_up_to_three_quarters_of_the_overlap_is_found_once(
    height: int, width: int, size: int, data: st.DataObject
) -> None:
    tiles = TilesConfig(size=size, overlap=size // 2, whole=data.draw(st.booleans()))
    w, h = (data.draw(st.integers(2, min(side, int(0.75 * tiles.overlap_pixels)))) for side in (width, height))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    (found,) = found_in([scene((height, width), [(x, y, x + w, y + h)])], tiles)
    np.testing.assert_allclose(found, [[x, y, x + w, y + h]], atol=0.02)


def test_images_without_objects_and_of_one_tile_are_in_order() -> None:
    tiles = TilesConfig(size=100, overlap=50)
    images = [scene((250, 250), []), scene((60, 90), [(5, 5, 20, 20)]), scene((250, 250), [(200, 200, 230, 230)])]
    assert found_in(images, tiles) == [[], [[5, 5, 20, 20]], [[200, 200, 230, 230]]]
    assert found_in([], tiles) == []


def test_a_doubtful_large_box_removes_no_part() -> None:
    """The part has a score of 0.9, the box of the whole image one of 0.2."""

    class Doubtful(Finder):
        def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
            for image, given_boxes in images:
                for scored in super().score([(image, given_boxes)]):
                    scored.probabilities[:, 1] = 0.2 if image.shape[1] == 300 else 0.9
                    yield scored

    tiled = TiledScorer(Doubtful(), TilesConfig(size=100, overlap=20), proposes=True, score_floor=0.01)
    ((boxes, scored, size),) = scored_regions(tiled, [(scene((100, 300), [(20, 20, 280, 60)]), NOTHING)])
    assert sorted(select_detections(boxes, scored, size, DETECT).scores.round(2).tolist()) == pytest.approx(
        [0.2, 0.9, 0.9, 0.9, 0.9]
    )


def test_regions_are_scored_where_a_tile_shows_them_and_keep_their_rows() -> None:
    """The oracle reads colours, so at the tiles' own size it gives the scores of the whole image."""
    pictures = [painted(number) for number in range(3)]
    regions = [(image, with_decoys(truth)) for image, truth in pictures]
    one_to_one = scorer(oracle(), 64)
    tiled = TiledScorer(one_to_one, TilesConfig(size=64, overlap=32), proposes=False, score_floor=0.01)
    for (image, truth), scored in zip(pictures, tiled.score(regions), strict=True):
        own = scored.probabilities[: len(truth)]
        assert own.argmax(axis=1).tolist() == truth.labels.tolist()
        assert (own.max(axis=1) > 0.9).all()
        assert scored.boxes is None
        assert len(scored.probabilities) == 2 * len(truth)
        assert image.shape[0] > 64


def test_without_regions_there_are_no_scores() -> None:
    tiled = TiledScorer(scorer(trained_like(), 40), TilesConfig(size=32), proposes=False, score_floor=0.01)
    (scored,) = tiled.score([(np.zeros((80, 90, 3), dtype=np.uint8), NOTHING)])
    assert scored.probabilities.shape == (0, 3)


def test_one_tile_gives_the_scores_without_tiles() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    boxes = np.array([[2, 3, 30, 30], [10, 0, 60, 40]], dtype=np.float32)
    plain = scorer(trained_like(), 40)
    (expected,) = plain.score([(image, boxes)])
    (scored,) = TiledScorer(plain, TilesConfig(size=60), proposes=False, score_floor=0.01).score([(image, boxes)])
    np.testing.assert_array_equal(scored.probabilities, expected.probabilities)
    np.testing.assert_array_equal(scored.deltas, expected.deltas)


def test_deltas_of_a_part_become_those_of_the_region() -> None:
    region = np.array([[10, 10, 90, 50], [10, 10, 30, 30]], dtype=np.float32)
    frame = np.array([0, 0, 60, 60], dtype=np.float32)
    deltas = np.array([[[0.1, -0.1, 0.2, 0.0]], [[0.3, 0, 0, 0]]], dtype=np.float32)
    converted = of_whole_regions(region, frame, deltas)
    target = decode(clip(region, (60, 60)), deltas[:, 0])
    np.testing.assert_allclose(decode(region, converted[:, 0]), target, atol=1e-3)
    np.testing.assert_array_equal(converted[1], deltas[1])


def spec_of(tiles: TilesConfig) -> FastRcnnSpec:
    head = FastRcnnConfig(tiles=tiles)
    return FastRcnnSpec(classes=("a", "b"), category_ids=(1, 2), backbone=BackboneConfig(), head=head)


@pytest.mark.parametrize(("detect", "expected"), [(None, 64), (0, 0), (96, 96)])
def test_detection_uses_the_tiles_of_the_training_unless_it_has_its_own(detect: int | None, expected: int) -> None:
    config = DetectConfig(fast_rcnn=FastRcnnScoringConfig(tiles=TilesConfig(size=detect)))
    spec = spec_of(TilesConfig(size=64))
    assert tiles_of(spec, config).size == expected
    built = fast_rcnn_scorer(trained_like(), spec, config, CPU, bf16=False)
    assert isinstance(built, TiledScorer if expected else FastRcnnScorer)


def test_a_network_that_proposes_gives_regions_of_all_tiles(tmp_path: Path) -> None:
    """With random weights: boxes in every part of the image, none of them outside."""
    network = tiny_multibox_fast_rcnn.network(tiny_multibox_fast_rcnn.spec(tmp_path))
    plain = FastRcnnScorer(
        network, scales=[64], max_side=128, flip=False, refine=0, device=CPU, bf16=False, compiled=False, proposals=20
    )
    image = np.random.default_rng(0).integers(0, 256, (150, 220, 3), dtype=np.uint8)
    tiles = TilesConfig(size=64, overlap=16)
    (scored,) = TiledScorer(plain, tiles, proposes=True, score_floor=0.01).score([(image, NOTHING)])
    assert scored.boxes is not None
    assert (area(scored.boxes) > 0).all()
    assert (scored.boxes >= 0).all()
    assert (scored.boxes <= [220, 150, 220, 150]).all()
    quarters = np.array([[x, y, x + 110, y + 75] for x in (0, 110) for y in (0, 75)], dtype=np.float32)
    assert (iou(quarters, scored.boxes) > 0).any(axis=1).all()
    assert len(scored.boxes) == len(scored.probabilities) > 20
