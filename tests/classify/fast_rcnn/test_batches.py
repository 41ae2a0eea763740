"""Batches of regions from a few images: what they hold, that they depend on nothing but their number, and bad files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detpipe.boxes import decode, iou
from detpipe.classify.crops.database import ChangedImageError
from detpipe.classify.fast_rcnn.batches import HierarchicalSampling, ImageViews, ProposedImage, joined
from detpipe.classify.labeling import Regions, SamplingConfig
from detpipe.datasets.image_file import file_digest
from detpipe.structures import GroundTruth
from detpipe.tiles import TilesConfig
from tests import drawn

VIEWS = ImageViews(scales=(60, 90), max_side=400, flip=True, fill=(1, 2, 3))
SAMPLING = SamplingConfig(fg_share=0.25, jittered=8)


def proposed(folder: Path, count: int = 5) -> list[ProposedImage]:
    """Drawn images, on each the objects moved a little and some background as proposals."""
    images = []
    for number in range(count):
        image, truth = drawn.draw(number)
        path = folder / f"{number}.jpg"
        drawn.write_jpeg(path, image)
        generator = np.random.default_rng(number)
        corners = generator.uniform(0, 80, (40, 2))
        random = np.concatenate([corners, corners + generator.uniform(10, 40, (40, 2))], axis=1)
        boxes = np.concatenate([truth.boxes + 2, random]).astype(np.float32)
        images.append(ProposedImage(path, file_digest(path), drawn.IMAGE_SIZE, boxes, truth))
    return images


def batches(images: list[ProposedImage], part: slice = slice(None), seed: int = 0) -> HierarchicalSampling:
    return HierarchicalSampling(images, SAMPLING, VIEWS, images_per_batch=2, batch_size=32, seed=seed, part=part)


def test_what_a_batch_holds(tmp_path: Path) -> None:
    make = batches(proposed(tmp_path))
    for number in range(6):
        batch = make(number)
        assert batch.images.shape[0] == 2
        assert batch.images.shape[3] == 3
        for image in (0, 1):
            own = batch.regions[:, 0] == image
            assert (batch.labels[own] > 0).sum() == 4  # a quarter of 16
            assert (batch.labels[own] == 0).sum() == 12
        foreground = batch.labels > 0
        assert not batch.deltas[~foreground].any()
        # Where each region of an object says that its object is: the same two places for all of them, disc and square.
        for image in (0, 1):
            for label in (1, 2):
                rows = (batch.regions[:, 0] == image) & (batch.labels == label)
                places = decode(batch.regions[rows, 1:], batch.deltas[rows])
                if len(places):
                    assert iou(places, places).min() > 0.97
                    colour = batch.images[image][
                        int(places[0, 1] + places[0, 3]) // 2, int(places[0, 0] + places[0, 2]) // 2
                    ]
                    assert colour.argmax() == {1: 0, 2: 2}[label]  # discs are red, squares blue


def test_a_batch_is_a_function_of_its_number(tmp_path: Path) -> None:
    images = proposed(tmp_path)
    first, again, other = batches(images), batches(images), batches(images, seed=1)
    for number in (7, 0, 7):
        for name in ("images", "regions", "labels", "deltas"):
            np.testing.assert_array_equal(getattr(first(number), name), getattr(again(number), name))
    assert any(not np.array_equal(first(number).regions, other(number).regions) for number in range(3))


def test_ranks_share_a_batch_by_images(tmp_path: Path) -> None:
    images = proposed(tmp_path)
    whole, parts = batches(images)(3), [batches(images, slice(rank, 2, 2))(3) for rank in (0, 1)]
    for rank, part in enumerate(parts):
        rows = whole.regions[:, 0] == rank
        assert set(part.regions[:, 0]) == {0.0}
        np.testing.assert_array_equal(part.regions[:, 1:], whole.regions[rows, 1:])
        np.testing.assert_array_equal(part.labels, whole.labels[rows])
        height, width = part.images.shape[1:3]
        np.testing.assert_array_equal(part.images[0], whole.images[rank, :height, :width])


def test_images_without_objects_are_background(tmp_path: Path) -> None:
    images = [replace(one, truth=GroundTruth.from_boxes([], [])) for one in proposed(tmp_path, 4)]
    make = batches(images)
    assert all((make(number).labels == 0).all() for number in range(2))


def test_every_image_has_its_turn(tmp_path: Path) -> None:
    """Each image has a proposal of its own, a line that no other has; a pass of two batches shows all four."""
    images = [
        replace(one, proposals=np.array([[0, 0, 160, 5 + 3 * place]], dtype=np.float32))
        for place, one in enumerate(proposed(tmp_path, 4))
    ]
    make = batches(images)
    shown = [
        float(boxes[:, 4].max() / boxes[:, 3].max())
        for number in range(2)
        for batch in [make(number)]
        for image in (0, 1)
        for boxes in [batch.regions[(batch.regions[:, 0] == image) & (batch.labels == 0)]]
    ]
    assert sorted(round(one * 160) for one in shown) == [5, 8, 11, 14]


def test_smaller_images_are_padded() -> None:
    nothing = Regions(*(np.zeros((0, *rest), dtype=kind) for rest, kind in (
        ((4,), np.float32), ((), np.int64), ((), np.float32), ((4,), np.float32))))  # fmt: skip
    small, wide = np.full((2, 3, 3), 50, dtype=np.uint8), np.full((1, 4, 3), 60, dtype=np.uint8)
    batch = joined([small, wide], [nothing, nothing], (7, 8, 9))
    assert batch.images.shape == (2, 2, 4, 3)
    assert batch.images[0, 0, 3].tolist() == [7, 8, 9]
    assert batch.images[1, 1, 0].tolist() == [7, 8, 9]
    assert (batch.images[0, :2, :3] == 50).all()
    assert (batch.images[1, 0] == 60).all()
    assert (batch.regions.shape, batch.deltas.shape) == ((0, 5), (0, 4))


def test_no_images() -> None:
    with pytest.raises(ValueError, match="expected at least one example"):
        batches([])(0)


def test_a_file_that_changed(tmp_path: Path) -> None:
    images = proposed(tmp_path)
    for one in images:
        one.path.write_bytes(one.path.read_bytes() + b"\0")
    with pytest.raises(ChangedImageError, match="changed since its proposals"):
        batches(images)(0)


def test_tiles_take_the_place_of_images(tmp_path: Path) -> None:
    """Tiles of 60 at their own size: what is labelled as an object has its colour where the deltas lead."""
    views = replace(VIEWS, scales=(60,), tiles=TilesConfig(size=60, overlap=30, whole=False))
    make = HierarchicalSampling(proposed(tmp_path), SAMPLING, views, images_per_batch=2, batch_size=32, seed=0)
    objects = 0
    for number in range(8):
        batch = make(number)
        assert batch.images.shape == (2, 60, 60, 3)
        assert (batch.regions[:, 1:] >= 0).all()
        assert (batch.regions[:, 1:] <= 60).all()
        foreground = batch.labels > 0
        places = decode(batch.regions[foreground, 1:], batch.deltas[foreground])
        for row, place, label in zip(
            batch.regions[foreground, 0], places, batch.labels[foreground].tolist(), strict=True
        ):
            colour = batch.images[int(row)][int(place[1] + place[3]) // 2, int(place[0] + place[2]) // 2]
            assert colour.argmax() == {1: 0, 2: 2}[label]
            objects += 1
    assert objects > 20


def test_proposals_that_a_tile_cuts_by_hand(tmp_path: Path) -> None:
    """Half of a proposal must be inside, as of an object."""
    (image,) = proposed(tmp_path, 1)
    boxes = np.array([[30, 20, 50, 40], [0, 20, 21, 40], [0, 20, 19, 40], [90, 0, 95, 5]], dtype=np.float32)
    part = replace(image, proposals=boxes).part((10, 10, 70, 70))
    assert part.image_size == (60, 60)
    assert part.proposals.tolist() == [[20, 10, 40, 30], [0, 10, 11, 30]]
