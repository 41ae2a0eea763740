"""Which region is the best box of its object: a case by hand, all assignments tried, and images without anything."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.heads.fast_rcnn.best_box import best_box_loss, best_boxes_of, matching_cost, placed_boxes
from detpipe.heads.fast_rcnn.network import RegionOutputs

SIZE = (100, 200)


def outputs(logits: list[list[float]], deltas: torch.Tensor | None = None) -> RegionOutputs:
    return RegionOutputs(torch.tensor(logits), deltas, None)


def test_the_likelier_of_two_equal_boxes() -> None:
    regions = torch.tensor([[0.0, 0, 20, 20], [0, 0, 20, 20], [100, 50, 120, 80]])
    found = best_boxes_of(outputs([[0.0, 0, 0], [0, 2, 0], [0, 5, 0]]), regions, torch.tensor([1]), regions[:1], SIZE)
    assert found.tolist() == [0, 1, 0]


def test_the_box_after_regression_counts() -> None:
    """The deltas of the object's class bring region 1 onto the object; those of the other class do not count."""
    regions = torch.tensor([[0.0, 0, 20, 16], [30, 0, 50, 20]])
    deltas = torch.zeros(2, 2, 4)
    deltas[1, 1, 0] = -1.5  # 30 pixels to the left for class 2
    both = outputs([[0.0, 0, 0], [0, 0, 0]], deltas)
    target = torch.tensor([[0.0, 0, 20, 20]])
    assert best_boxes_of(both, regions, torch.tensor([2]), target, SIZE).tolist() == [0, 1]
    assert best_boxes_of(both, regions, torch.tensor([1]), target, SIZE).tolist() == [1, 0]


def test_a_region_that_does_not_cover_the_object_is_no_best_box() -> None:
    regions = torch.tensor([[0.0, 0, 20, 9]])
    assert best_boxes_of(outputs([[0.0, 9]]), regions, torch.tensor([1]), torch.tensor([[0.0, 0, 20, 20]]), SIZE) == 0


def test_the_cost_by_hand() -> None:
    regions, objects = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 20, 20]])
    one, labels = outputs([[0.0, math.log(3)]]), torch.tensor([1])
    cost = matching_cost(one, placed_boxes(one, regions, labels), labels, objects, SIZE)
    # Probability 3 / 4; y2 is 10 of 100 pixels away; GIoU = IoU = 1 / 2.
    assert cost.tolist() == [[pytest.approx(5 * 0.1 - 0.75 + 2 * 0.5, abs=1e-5)]]


@settings(max_examples=25, deadline=None)
@given(n_objects=st.integers(1, 3), n_regions=st.integers(3, 5), seed=st.integers(0, 999))
def test_no_other_assignment_costs_less(n_objects: int, n_regions: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n_regions, 2, generator=generator) * 30
    regions = torch.cat([corner, corner + 20 + torch.rand(n_regions, 2, generator=generator) * 30], dim=1)
    objects = regions[:n_objects] + torch.rand(n_objects, 4, generator=generator) * 4
    labels = torch.randint(1, 3, (n_objects,), generator=generator)
    one = RegionOutputs(torch.randn(n_regions, 3, generator=generator), None, None)
    cost = matching_cost(one, placed_boxes(one, regions, labels), labels, objects, SIZE)
    chosen = min(
        itertools.permutations(range(n_regions), n_objects),
        key=lambda columns: sum(float(cost[row, column]) for row, column in enumerate(columns)),
    )
    # Those of the cheapest assignment that cover their object, and no others.
    found = set(torch.nonzero(best_boxes_of(one, regions, labels, objects, SIZE)).squeeze(1).tolist())
    assert found <= set(chosen)
    for row, column in enumerate(chosen):
        shared = (torch.minimum(regions[column, 2:], objects[row, 2:])
                  - torch.maximum(regions[column, :2], objects[row, :2])).clamp(min=0).prod()  # fmt: skip
        areas = [(box[2:] - box[:2]).prod() for box in (regions[column], objects[row])]
        assert (column in found) == bool(shared / (areas[0] + areas[1] - shared) >= 0.5)


def test_without_objects_and_without_regions() -> None:
    regions, none, labels = torch.tensor([[0.0, 0, 20, 20]]), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert best_boxes_of(outputs([[0.0, 0]]), regions, labels, none, SIZE).tolist() == [0]
    empty = RegionOutputs(torch.zeros(0, 2), torch.zeros(0, 1, 4), None)
    assert best_boxes_of(empty, none, torch.tensor([1]), regions, SIZE).tolist() == []
    assert best_box_loss(torch.zeros(0), torch.zeros(0)) == 0


def test_the_loss_is_per_object() -> None:
    assert best_box_loss(torch.zeros(4), torch.tensor([1.0, 0, 0, 1])) == pytest.approx(4 * math.log(2) / 2)
    assert best_box_loss(torch.zeros(3), torch.zeros(3)) == pytest.approx(3 * math.log(2))
