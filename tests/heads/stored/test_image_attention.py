"""Attention in a head on stored features: boxes and batches by hand, no effect at first, and what it can learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from detpipe.classify.features.geometry import COLUMNS, region_geometry
from detpipe.heads.stored.feature_head import Examples
from detpipe.heads.stored.image_attention import ImageBatches, RegionBatches, boxes_of, new_attention
from detpipe.heads.stored.two_layers import TwoLayersConfig, TwoLayersHead
from detpipe.structures import Float32Array

HIDDEN = 16


def drawn_boxes(count: int, seed: int = 0) -> Float32Array:
    generator = np.random.default_rng(seed)
    corner = generator.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + generator.uniform(5, 39, (count, 2))], axis=1).astype(np.float32)


def pairs(images: int = 80, seed: int = 0) -> Examples:
    """Two regions in each image, with features that do not depend on each other. The first is an object if the first
    feature of the second is positive."""
    generator = np.random.default_rng(seed)
    features = generator.normal(0, 0.1, (2 * images, 8)).astype(np.float32)
    positive = generator.random(images) < 0.5
    features[1::2, 0] += np.where(positive, 2, -2)
    features[0::2, 1] += 4
    labels = np.zeros(2 * images, np.int64)
    labels[0::2] = positive
    geometry = np.concatenate(
        [region_geometry(drawn_boxes(2, seed=one), (100, 100), np.arange(2)) for one in range(images)]
    )
    return Examples(
        features=features,
        geometry=geometry,
        labels=labels,
        ious=labels.astype(np.float32),
        deltas=np.zeros((2 * images, 4), np.float32),
        class_ious=labels[:, None].astype(np.float32),
        classes=("a",),
        sets=np.repeat(np.arange(images), 2),
    )


SETTINGS = TwoLayersConfig(networks=2, hidden=HIDDEN, passes=30, batch_size=32, lr=0.01, dropout=0.1, fg_share=0.5)


def with_attention(head: TwoLayersHead, *, learned: bool) -> TwoLayersHead:
    """The head with two layers of attention: they have learned something, or nothing."""
    more: dict[str, Tensor] = {}
    for number in range(len(head.bias)):
        attention = new_attention(HIDDEN, 2, seed=number)
        if learned:
            for layer in attention.layers:
                torch.nn.init.normal_(layer.joined.weight, generator=torch.Generator().manual_seed(number))
        more |= {f"attention.{number}.{name}": one for name, one in attention.state_dict().items()}
    return TwoLayersHead(**head.tensors(), **more)


@pytest.fixture(scope="module")
def plain() -> TwoLayersHead:
    found = replace(SETTINGS, passes=1.0).train(pairs(), seed=0)
    assert isinstance(found, TwoLayersHead)
    return found


def inputs(count: int) -> tuple[Tensor, Tensor]:
    """Features and geometry of the regions of an image."""
    features = torch.randn(count, 8, generator=torch.Generator().manual_seed(2))
    return features, torch.from_numpy(region_geometry(drawn_boxes(count), (100, 100), np.arange(count)))


def test_boxes_from_their_geometry() -> None:
    boxes = np.array([[10, 20, 30, 25], [0, 0, 200, 100]], np.float32)
    found = boxes_of(torch.from_numpy(region_geometry(boxes, (100, 200), np.arange(2))))
    wanted = torch.tensor([[50.0, 200, 150, 250], [0, 0, 1000, 1000]])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)
    assert boxes_of(torch.zeros(0, COLUMNS)).shape == (0, 4)


def test_layers_that_have_learned_nothing_change_no_bit(plain: TwoLayersHead) -> None:
    head = with_attention(plain, learned=False)
    assert (plain.attention_layers, head.attention_layers) == (0, 2)
    for before, after in zip(plain(*inputs(9)), head(*inputs(9)), strict=True):
        assert before is not None
        assert after is not None
        assert torch.equal(before, after)


def test_the_order_of_the_regions_does_not_matter(plain: TwoLayersHead) -> None:
    head, (features, geometry) = with_attention(plain, learned=True), inputs(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    scores, deltas = head(features, geometry)
    moved, moved_deltas = head(features[order], geometry[order])
    torch.testing.assert_close(moved, scores[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved_deltas, deltas[order], rtol=1e-4, atol=1e-5)
    alone, _ = head(features[:1], geometry[:1])
    assert alone.isfinite().all()
    assert not torch.allclose(alone, scores[:1])  # the others are part of its score


def test_ignored_regions_change_nothing(plain: TwoLayersHead) -> None:
    head, (features, geometry) = with_attention(plain, learned=True), inputs(5)
    scores, _ = head(features, geometry, torch.arange(5) >= 3)
    torch.testing.assert_close(scores[:3], head(features[:3], geometry[:3])[0])


def test_no_regions(plain: TwoLayersHead) -> None:
    scores, deltas = with_attention(plain, learned=True)(torch.zeros(0, 8), torch.zeros(0, COLUMNS))
    assert (scores.shape, deltas.shape) == ((0, 2), (0, 1, 4))


def test_a_head_of_its_own_tensors(plain: TwoLayersHead) -> None:
    head = with_attention(plain, learned=True)
    again = TwoLayersHead(**head.tensors())
    assert torch.equal(again(*inputs(4))[0], head(*inputs(4))[0])
    tensors = head.tensors()
    del tensors["attention.1.layers.0.query.weight"]
    with pytest.raises(RuntimeError, match=r"query\.weight"):
        TwoLayersHead(**tensors)
    with pytest.raises(TypeError, match="2 networks"):
        TwoLayersHead(**head.tensors(), **{"attention.2.layers.0.query.weight": torch.zeros(1)})


def test_it_learns_what_only_another_region_tells() -> None:
    """Without attention, an object and background look the same."""
    seen, unseen = pairs(), pairs(seed=1)
    right = {}
    for layers in (0, 1):
        head = replace(SETTINGS, attention=layers, networks=1, passes=20.0).train(seen, seed=0)
        scores = torch.cat([
            head(torch.from_numpy(unseen.features[row : row + 2]), torch.from_numpy(unseen.geometry[row : row + 2]))[0]
            for row in range(0, len(unseen.labels), 2)
        ])[0::2, 1].numpy()  # fmt: skip
        objects = unseen.labels[0::2] > 0
        right[layers] = (scores[objects][:, None] > scores[~objects]).mean()
    assert right[0] < 0.7
    assert right[1] > 0.95


def test_the_same_seed_gives_the_same_head() -> None:
    settings = replace(SETTINGS, attention=1, passes=1.0)
    one, again = (settings.train(pairs(), seed=0).tensors() for _ in range(2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())


def test_regions_without_their_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"head\.attention=1: expected the image of each region"):
        replace(SETTINGS, attention=1).train(replace(pairs(), sets=None), seed=0)


def test_batches_of_images_by_hand() -> None:
    """Images of 2, 3 and 1 regions, mixed; region 4 is not learned. Both halves of the weight go to the same number."""
    labels, sets = np.array([1, 0, 0, 2, 0, 0]), np.array([7, 3, 7, 3, 3, 9])
    rows = np.array([0, 1, 2, 3, 5])
    batches = ImageBatches(labels, rows, sets, size=6, fg_share=0.5)
    batch = batches.draw(np.random.default_rng(0))
    assert sorted(batch.rows.tolist()) == [0, 1, 2, 3, 4, 5]
    weights = dict(zip(batch.rows.tolist(), batch.weights.tolist(), strict=True))
    assert weights == pytest.approx({0: 1 / 4, 3: 1 / 4, 1: 1 / 6, 2: 1 / 6, 5: 1 / 6, 4: 0})
    assert len({(int(sets[row]), int(one)) for row, one in zip(batch.rows, batch.sets, strict=True)}) == 3
    alone = ImageBatches(labels, rows, sets, size=1, fg_share=0.5)
    drawn = [alone.draw(np.random.default_rng(seed)) for seed in range(20)]
    assert {tuple(one.rows.tolist()) for one in drawn} == {(0, 2), (1, 3, 4), (5,)}
    assert all(one.weights.sum() == pytest.approx(1) for one in drawn)  # also without an object


def test_batches_of_regions() -> None:
    labels = np.array([0, 1, 0, 2])
    batch = RegionBatches(labels, np.arange(4), size=8, fg_share=0.25).draw(np.random.default_rng(0))
    assert (labels[batch.rows] > 0).tolist() == [True] * 2 + [False] * 6
    assert batch.weights.tolist() == [1 / 8] * 8
    only = RegionBatches(labels, np.array([1, 3]), size=8, fg_share=0.25).draw(np.random.default_rng(0))
    assert (labels[only.rows] > 0).all()
