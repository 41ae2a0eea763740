"""R-CNN's inference: crops in batches, and the cascade of small crops before full ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.scorer import CascadeScorer, CropScorer, in_their_places, most_likely
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.detect import ScoredRegions
from detpipe.structures import Float32Array, Image
from tests.classify import tiny

CPU = torch.device("cpu")


def scorer(batch_size: int, *, box_regression: bool = True, bf16: bool = False, compiled: bool = False) -> CropScorer:
    network = tiny.confident(tiny.classifier(box_regression=box_regression))
    return CropScorer(
        network, CropConfig(size=tiny.SIDE), device=CPU, bf16=bf16, compiled=compiled, batch_size=batch_size
    )


def images_of(counts: list[int]) -> list[Image]:
    return [tiny.crops(count, seed) for seed, count in enumerate(counts)]


def test_regions_of_an_image_are_its_crops() -> None:
    image = tiny.crops(1)[0]
    boxes = np.array([(0, 0, 8, 8), (4, 2, 16, 12)], dtype=np.float32)
    one = scorer(4)
    crops = crop_regions(image, boxes, CropConfig(size=tiny.SIDE))
    (of_image, none), (of_crops,) = one.score([(image, boxes), (image, boxes[:0])]), one.score_crops([crops])
    np.testing.assert_array_equal(of_image.probabilities, of_crops.probabilities)
    assert none.probabilities.shape == (0, 3)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [0, 0], [], [8], [0, 4, 0]])
def test_batches_across_images_give_what_single_images_give(counts: list[int], batch_size: int) -> None:
    images = images_of(counts)
    together = list(scorer(batch_size).score_crops(images))
    assert len(together) == len(images)
    for crops, result in zip(images, together, strict=True):
        (alone,) = scorer(64).score_crops([crops])
        assert result.probabilities.shape == (len(crops), 3)
        assert result.probabilities.dtype == np.float32
        np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=1e-5)
        assert result.deltas is not None
        assert alone.deltas is not None
        assert result.deltas.shape == (len(crops), 2, 4)
        np.testing.assert_allclose(result.deltas, alone.deltas, atol=1e-5)


def test_scores_are_the_networks() -> None:
    crops = tiny.crops(6)
    network = tiny.confident(tiny.classifier())
    with torch.inference_mode():
        logits, deltas = network(torch.from_numpy(crops))
    (result,) = scorer(4).score_crops([crops])
    np.testing.assert_allclose(result.probabilities, logits.softmax(dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, atol=1e-5)
    assert result.probabilities.std(axis=0).min() > 0.01  # or all crops would look alike
    np.testing.assert_allclose(result.deltas, deltas.numpy(), atol=1e-5)


def test_without_box_regression_there_are_no_deltas() -> None:
    results = list(scorer(4, box_regression=False).score_crops(images_of([3, 0])))
    assert [result.deltas for result in results] == [None, None]
    assert results[1].probabilities.shape == (0, 3)


def test_an_error_in_the_images_is_raised() -> None:
    def images() -> Iterator[Image]:
        yield tiny.crops(3)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(scorer(2).score_crops(images()))


def test_bf16_is_close_to_float32() -> None:
    images = images_of([5, 6])
    for exact, rough in zip(scorer(4).score_crops(images), scorer(4, bf16=True).score_crops(images), strict=True):
        assert rough.probabilities.dtype == np.float32
        np.testing.assert_allclose(rough.probabilities, exact.probabilities, atol=0.03)
        np.testing.assert_allclose(rough.deltas, exact.deltas, atol=0.05)
        assert not np.array_equal(rough.probabilities, exact.probabilities)


@pytest.mark.slow
def test_compiled_is_close_to_eager() -> None:
    images = images_of([5, 0, 6])
    for eager, compiled in zip(
        scorer(4).score_crops(images), scorer(4, compiled=True).score_crops(images), strict=True
    ):
        np.testing.assert_allclose(compiled.probabilities, eager.probabilities, atol=1e-4)
        np.testing.assert_allclose(compiled.deltas, eager.deltas, atol=1e-4)


# The cascade


class Written:
    """A scorer whose probability of an object is the box's x1 / 100, and that notes how many regions it saw."""

    network = nn.Identity()

    def __init__(self) -> None:
        self.seen: list[int] = []

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        for _, boxes in images:
            self.seen.append(len(boxes))
            share = boxes[:, 0] / 100
            yield ScoredRegions(np.stack([1 - share, share], axis=1).astype(np.float32), None)


def boxes_at(*lefts: float) -> Float32Array:
    return np.array([(left, 0, 200, 5) for left in lefts], dtype=np.float32).reshape(-1, 4)


IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)


def test_the_likeliest_survive_and_the_rest_is_background() -> None:
    first, second = Written(), Written()
    cascade = CascadeScorer(first, second, keep=2)
    images = [(IMAGE, boxes_at(10, 90, 30, 50)), (IMAGE, boxes_at()), (IMAGE, boxes_at(20))]
    some, none, one = cascade.score(images)
    assert (first.seen, second.seen) == ([4, 0, 1], [2, 0, 1])
    np.testing.assert_allclose(some.probabilities[:, 1], [0, 0.9, 0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(some.probabilities.sum(axis=1), 1, rtol=1e-6)
    assert none.probabilities.shape == (0, 2)
    assert one.probabilities[0, 1] == pytest.approx(0.2)
    assert list(cascade.score([])) == []


def test_equal_regions_survive_in_their_order() -> None:
    scored = ScoredRegions(np.full((5, 2), 0.5, dtype=np.float32), None)
    assert most_likely(scored, 3).tolist() == [0, 1, 2]


def test_deltas_go_with_their_regions() -> None:
    deltas = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    scored = ScoredRegions(np.array([[0.2, 0.3, 0.5]], dtype=np.float32), deltas)
    placed = in_their_places(scored, 3, np.array([2]))
    assert placed.deltas is not None
    np.testing.assert_array_equal(placed.deltas[2], deltas[0])
    assert not placed.deltas[:2].any()


def test_keeping_all_is_the_second_scorer_alone() -> None:
    network = tiny.confident(tiny.classifier())
    small, large = (
        CropScorer(network, CropConfig(size=size), device=CPU, bf16=False, compiled=False, batch_size=4)
        for size in (8, 16)
    )
    image = tiny.crops(1)[0]
    boxes = np.array([[0, 0, 8, 8], [4, 2, 16, 12], [1, 1, 9, 15]], dtype=np.float32)
    (alone,), (both,) = large.score([(image, boxes)]), CascadeScorer(small, large, keep=9).score([(image, boxes)])
    np.testing.assert_array_equal(both.probabilities, alone.probabilities)
