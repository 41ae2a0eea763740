"""Attention among regions: a case by hand, regions in any order, images apart, and a start without effect."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.heads.fast_rcnn import region_attention as module
from detpipe.heads.fast_rcnn.region_attention import AttentionLayer, RegionAttention, relative_geometry


def attention(width: int = 6, layers: int = 2, *, trained: bool = True) -> RegionAttention:
    generator = torch.Generator().manual_seed(3)
    made = RegionAttention(width, layers=layers, heads=2, width=4, hidden=5, generator=generator)
    if trained:
        with torch.no_grad():
            for layer in made.layers:
                for end in (layer.joined, layer.output):
                    end.weight.normal_(generator=generator)
    return made.eval()


def regions(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (count, 6) and boxes (count, 4)."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 50
    far = corner + 1 + torch.rand(count, 2, generator=generator) * 50
    return torch.randn(count, 6, generator=generator), torch.cat([corner, far], dim=1)


def test_geometry_of_a_pair() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 40, 25, 50]])
    found = relative_geometry(boxes, boxes)
    # Centres (5, 10) and (15, 45); sides (10, 20) and (20, 10).
    assert found[0, 1].tolist() == pytest.approx([math.log(1), math.log(35 / 20), math.log(2), math.log(0.5)])
    assert found[1, 0].tolist() == pytest.approx([math.log(0.5), math.log(3.5), math.log(0.5), math.log(2)])
    assert found[0, 0].tolist() == pytest.approx([math.log(1e-3), math.log(1e-3), 0, 0])


def test_geometry_of_empty_boxes_is_finite() -> None:
    boxes = torch.tensor([[3.0, 3, 3, 3], [0, 0, 8, 8]])
    assert relative_geometry(boxes, boxes).isfinite().all()


def test_a_layer_by_hand() -> None:
    """Two regions, one head. Queries and keys are 0, so only the geometry decides: twice the width gives a logit of
    log 2, and the same box a logit of 0."""
    layer = AttentionLayer(2, heads=1, width=2, hidden=2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one in (layer.query, layer.key):
            one.weight.zero_()
        layer.value.weight.copy_(torch.eye(2))
        layer.joined.weight.copy_(torch.eye(2))
        first, last = layer.geometry[0], layer.geometry[2]
        first.weight.zero_()
        first.weight[0, 2], first.weight[1, 2] = 1, -1  # the positive and the negative part of log w' / w
        last.weight.zero_()
        last.weight[0, 0], last.weight[0, 1] = 1, -1
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 10]])
    features = torch.tensor([[1.0, 3.0], [5.0, 1.0]])  # layer norm: (-1, 1) and (1, -1)
    torch.testing.assert_close(layer.weights(features, boxes)[0], torch.tensor([[1 / 3, 2 / 3], [1 / 3, 2 / 3]]))
    found = layer(features, boxes)
    wanted = features + torch.tensor([[1 / 3, -1 / 3], [1 / 3, -1 / 3]])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_it_starts_without_effect() -> None:
    features, boxes = regions(7)
    untrained = attention(trained=False)
    assert torch.equal(untrained(features, boxes, torch.zeros(7)), features)
    assert not torch.equal(attention()(features, boxes, torch.zeros(7)), features)
    untrained(features, boxes, torch.zeros(7)).square().sum().backward()
    assert untrained.layers[0].joined.weight.grad.any()  # type: ignore[union-attr]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_order_of_the_regions_does_not_matter(count: int, seed: int) -> None:
    features, boxes = regions(count, seed)
    sets = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(seed)).float()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))
    one = attention()
    with torch.no_grad():
        torch.testing.assert_close(
            one(features[order], boxes[order], sets[order]), one(features, boxes, sets)[order], rtol=1e-4, atol=1e-4
        )


def test_images_are_apart() -> None:
    one, (features, boxes), sets = attention(), regions(8), torch.tensor([0.0, 1, 0, 0, 1, 1, 0, 1])
    before = one(features, boxes, sets)
    changed = features.clone()
    changed[sets == 1] = 9
    after = one(changed, boxes, sets)
    torch.testing.assert_close(after[sets == 0], before[sets == 0], rtol=0, atol=0)
    alone = one(features[sets == 0], boxes[sets == 0], sets[sets == 0])
    torch.testing.assert_close(alone, before[sets == 0])
    changed = features.clone()
    changed[0] = 9
    assert not torch.equal(one(changed, boxes, sets)[2], before[2])  # but those of one image are not


def test_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, (features, boxes) = attention(), regions(11)
    whole = one(features, boxes, torch.zeros(11))
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 4)
    torch.testing.assert_close(one(features, boxes, torch.zeros(11)), whole)


def test_an_ignored_region_changes_nothing() -> None:
    one, (features, boxes) = attention(), regions(5)
    spare = torch.arange(5) == 4
    found = one.at_once(features, boxes, spare)
    torch.testing.assert_close(found[:4], one(features[:4], boxes[:4], torch.zeros(4)))
    assert one.at_once(features[4:], boxes[4:], spare[4:]).isfinite().all()  # no other region is there


def test_weights_sum_to_one() -> None:
    features, boxes = regions(5)
    found = attention().weights(features, boxes)
    assert found.shape == (2, 2, 5, 5)
    torch.testing.assert_close(found.sum(dim=3), torch.ones(2, 2, 5))


def test_no_regions() -> None:
    one, (features, boxes) = attention(), regions(0)
    found = one(features, boxes, torch.zeros(0))
    assert found.shape == (0, 6)
    found.sum().backward()  # every process of a distributed training has gradients
    assert one.layers[0].joined.weight.grad is not None  # type: ignore[union-attr]
