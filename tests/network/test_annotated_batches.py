"""Batches of whole images: padding, order, and what their objects are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.datasets.image_file import BrokenImageError
from detpipe.network.annotated_batches import AnnotatedBatches, AnnotatedImage, padded
from detpipe.network.box_views import BoxViews
from detpipe.structures import GroundTruth
from tests import drawn

VIEWS = BoxViews(scales=(60, 90), max_side=400, crop_share=0.5, crop_area=0.2, colour=0.2)
FILL = (1, 2, 3)


def annotated(folder: Path, count: int = 5) -> list[AnnotatedImage]:
    """Drawn images, of which the disc is worth 0.25, and the square 0.75."""
    images = []
    for number in range(count):
        image, truth = drawn.draw(number)
        drawn.write_jpeg(folder / f"{number}.jpg", image)
        images.append(AnnotatedImage(folder / f"{number}.jpg", truth, np.array([0.25, 0.75], dtype=np.float32)))
    return images


def batches(
    images: list[AnnotatedImage], *, views: BoxViews = VIEWS, part: slice = slice(None), seed: int = 0, size: int = 3
) -> AnnotatedBatches:
    return AnnotatedBatches(images, views, batch_size=size, multiple=16, fill=FILL, seed=seed, part=part)


def test_padding_by_hand() -> None:
    small, wide = np.full((2, 3, 3), 50, dtype=np.uint8), np.full((1, 5, 3), 60, dtype=np.uint8)
    images, sizes = padded([small, wide], 4, FILL)
    assert images.shape == (2, 4, 8, 3)
    assert sizes == ((2, 3), (1, 5))
    assert (images[0, :2, :3] == 50).all()
    assert (images[1, :1, :5] == 60).all()
    images[0, :2, :3] = images[1, :1, :5] = FILL
    assert (images == FILL).all()
    assert padded([wide], 1, FILL)[0].shape == (1, 1, 5, 3)  # nothing to pad


def test_what_a_batch_holds(tmp_path: Path) -> None:
    make = batches(annotated(tmp_path))
    for number in range(4):
        batch = make(number)
        assert batch.number == number
        assert len(batch.images) == len(batch.sizes) == len(batch.truths) == len(batch.weights) == 3
        height, width = batch.images.shape[1:3]
        assert height % 16 == width % 16 == 0
        assert height - max(size[0] for size in batch.sizes) < 16
        assert width - max(size[1] for size in batch.sizes) < 16
        for image, (rows, columns), truth in zip(batch.images, batch.sizes, batch.truths, strict=True):
            assert (image[rows:] == FILL).all()
            assert (image[:, columns:] == FILL).all()
            assert (truth.boxes <= np.array([columns, rows, columns, rows]) + 1e-4).all()
            for (x1, y1, x2, y2), label in zip(
                truth.boxes[~truth.difficult], truth.labels[~truth.difficult], strict=True
            ):
                colour = image[int(y1 + y2) // 2, int(x1 + x2) // 2]
                assert colour.argmax() == {1: 0, 2: 2}[int(label)]  # discs are red, squares blue


def test_a_batch_is_a_function_of_its_number(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    first, again, other = batches(images), batches(images), batches(images, seed=1)
    kept = {}
    for number in (7, 0, 7):
        kept[number] = first(number)
    for number in (0, 7):
        same = again(number)
        np.testing.assert_array_equal(kept[number].images, same.images)
        assert kept[number].sizes == same.sizes
        for one, two in zip(kept[number].truths, same.truths, strict=True):
            np.testing.assert_array_equal(one.boxes, two.boxes)
    assert any(kept[number].sizes != other(number).sizes for number in (0, 7))


def test_ranks_share_a_batch_by_images(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    whole, parts = batches(images, size=4)(2), [batches(images, size=4, part=slice(rank, 4, 2))(2) for rank in (0, 1)]
    for place in range(4):
        part, turn = parts[place % 2], place // 2
        rows, columns = whole.sizes[place]
        assert part.sizes[turn] == (rows, columns)
        np.testing.assert_array_equal(part.images[turn, :rows, :columns], whole.images[place, :rows, :columns])
        np.testing.assert_array_equal(part.truths[turn].boxes, whole.truths[place].boxes)
        np.testing.assert_array_equal(part.weights[turn], whole.weights[place])


def test_worths_follow_the_objects_that_a_view_keeps(tmp_path: Path) -> None:
    views = BoxViews(scales=(90,), max_side=400, crop_share=1, crop_area=0.1)
    make = batches(annotated(tmp_path), views=views)
    shown = [
        pair
        for number in range(20)
        for batch in [make(number)]
        for pair in zip(batch.truths, batch.weights, strict=True)
    ]
    for truth, weight in shown:
        assert weight.tolist() == [{1: 0.25, 2: 0.75}[label] for label in truth.labels.tolist()]
    assert {tuple(truth.labels.tolist()) for truth, _ in shown} == {(1,), (2,), (1, 2)}


def test_without_worth_all_are_worth_one(tmp_path: Path) -> None:
    image = AnnotatedImage(tmp_path, GroundTruth.from_boxes([], []))
    assert image.weights_of(GroundTruth.from_boxes([[0, 0, 1, 1]] * 2, [7, 9])).tolist() == [1, 1]
    assert image.weights_of(image.truth).shape == (0,)
    nothing = AnnotatedImage(tmp_path, image.truth, np.zeros(0, dtype=np.float32))
    assert nothing.weights_of(nothing.truth).shape == (0,)


def test_images_without_objects(tmp_path: Path) -> None:
    images = [AnnotatedImage(one.path, GroundTruth.from_boxes([], [])) for one in annotated(tmp_path)]
    batch = batches(images)(0)
    assert [len(truth) for truth in batch.truths] == [len(weight) for weight in batch.weights] == [0, 0, 0]


def test_a_pass_shows_each_image_once(tmp_path: Path) -> None:
    """Four images of four widths; two batches of two."""
    images, views = [], BoxViews(scales=(40,), max_side=400, flip=False)
    for width in (40, 50, 60, 70):
        drawn.write_jpeg(tmp_path / f"{width}.jpg", np.zeros((40, width, 3), dtype=np.uint8))
        images.append(AnnotatedImage(tmp_path / f"{width}.jpg", GroundTruth.from_boxes([], [])))
    make = batches(images, views=views, size=2)
    assert sorted(size[1] for number in (0, 1) for size in make(number).sizes) == [40, 50, 60, 70]


def test_a_broken_file(tmp_path: Path) -> None:
    images = annotated(tmp_path, 3)
    images[1].path.write_bytes(images[1].path.read_bytes()[:900])
    with pytest.raises(BrokenImageError, match=r"1\.jpg"):
        batches(images)(0)


def test_no_images() -> None:
    with pytest.raises(ValueError, match="expected at least one example"):
        batches([])
