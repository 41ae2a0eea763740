"""MultiBox and Fast R-CNN on one network: maps give regions and classes, each image its own, and what its seed says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox.priors import centred
from detpipe.heads.multibox.settings import MultiBoxTargetConfig
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from tests.classify import tiny

SHAPES = [centred(np.array([[side, side]], dtype=np.float32)) for side in (12, 24)]
"""Squares of 12 on the map of stride 4, of 24 on the one that is coarser."""


def head(**more: object) -> MultiBoxFastRcnnConfig:
    settings = {"maps": ["stem"], "merge_width": 6, "pool_size": 2, "hidden": 5, "dropout": 0.0, **more}
    return MultiBoxFastRcnnConfig(**settings)  # type: ignore[arg-type]


def network(seed: int = 0, **more: object) -> MultiBoxFastRcnn:
    """Evaluation mode; its boxes, confidences and classes differ from place to place."""
    torch.manual_seed(7)
    made = MultiBoxFastRcnn(tiny.TinyBackbone(), 3, head(**more), SHAPES, seed=seed).eval()
    with torch.no_grad():
        for layer in made.predictor.outputs:
            layer.weight.mul_(30)
        made.head.linear.weight.mul_(50)
    return made


def images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 32, 48, 3), dtype=torch.uint8, generator=generator)


def test_maps_give_regions_and_their_classes() -> None:
    one = network()
    maps = one.feature_maps(images())
    output = one.predict(maps, (32, 48))
    assert output.logits.shape == (2, 8 * 12 + 4 * 6)  # a prior at every cell of both maps
    assert output.deltas.shape == (2, 120, 4)
    boxes, scores = one.propose(output, 1, (32, 48), 7)
    assert boxes.shape == (7, 4)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert 0 < scores.min() <= scores.max() < 1
    logits, deltas = one.classify(one.pool(maps, torch.nn.functional.pad(boxes, (1, 0), value=1)))
    assert logits.shape == (7, 4)
    assert deltas is not None
    assert deltas.shape == (7, 3, 4)


def test_each_image_of_a_padded_batch_proposes_within_itself() -> None:
    one = network(proposal_nms=1.0)
    output = one.predict(one.feature_maps(images()), (32, 48))
    for place, (height, width) in enumerate([(32, 20), (9, 48)]):
        boxes, _ = one.propose(output, place, (height, width), 1000)
        assert 0 < len(boxes) < 120  # those that lie beside the image are gone
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= width).all()
        assert (boxes[:, [1, 3]] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_an_image_s_proposals_are_its_own() -> None:
    one, both = network(), images()
    before = [one.propose(one.predict(one.feature_maps(both), (32, 48)), place, (32, 48), 5) for place in (0, 1)]
    both[1] = 0
    after = [one.propose(one.predict(one.feature_maps(both), (32, 48)), place, (32, 48), 5) for place in (0, 1)]
    torch.testing.assert_close(after[0], before[0])
    assert not torch.equal(after[1][1], before[1][1])


def test_no_gradient_flows_through_the_proposals() -> None:
    """Approximate joint training: where the regions are is taken as given."""
    one = network()
    output = one.predict(one.feature_maps(images()), (32, 48))
    assert output.logits.requires_grad
    assert not any(found.requires_grad for found in one.propose(output, 0, (32, 48), 5))


def test_the_better_of_overlapping_boxes_stays() -> None:
    every, few = network(proposal_nms=1.0), network(proposal_nms=0.0)
    output = every.predict(every.feature_maps(images()), (32, 48))
    boxes, _ = few.propose(output, 0, (32, 48), 100)
    assert len(boxes) < len(every.propose(output, 0, (32, 48), 100)[0])
    for place, box in enumerate(boxes):
        overlap = (torch.minimum(box[2:], boxes[:place, 2:]) - torch.maximum(box[:2], boxes[:place, :2])).clamp(min=0)
        assert not overlap.prod(dim=1).any()
    torch.testing.assert_close(boxes[0], every.propose(output, 0, (32, 48), 1)[0][0])


def test_new_layers_are_the_seed_s_whatever_the_global_generator_is() -> None:
    first, second, other = network(0), network(0), network(1)
    torch.manual_seed(99)
    third = MultiBoxFastRcnn(tiny.TinyBackbone(), 3, head(), SHAPES, seed=0).eval()
    new = [list(one.predictor.shared.parameters()) for one in (first, second, third, other)]
    for own, same, also, different in zip(*new, strict=True):
        assert torch.equal(own, same)
        assert torch.equal(own, also)
        assert not own.any() or not torch.equal(own, different)  # biases are 0
    assert torch.equal(first.fc1.weight, third.fc1.weight)  # type: ignore[arg-type]


def test_attention_changes_no_other_parameter_and_no_output_at_the_start() -> None:
    without, one = network(), network(attention=2)
    own, new = without.state_dict(), one.state_dict()
    assert {name for name in new if name not in own} == {
        name for name in new if name.startswith(("attention.", "best."))
    }
    assert all(torch.equal(tensor, new[name]) for name, tensor in own.items())
    places = torch.tensor([[0.0, 0, 0, 9, 9], [0, 5, 5, 30, 30], [1, 0, 0, 9, 20]])
    found = [each.classify(each.pool(each.feature_maps(images()), places), places) for each in (without, one)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"head\.attention"):
        one.classify(one.pool(one.feature_maps(images()), places))


@pytest.mark.parametrize("attention", [0, 2])
def test_all_but_the_backbone_is_new(attention: int) -> None:
    one = network(attention=attention)
    new = {id(parameter) for module in one.new_modules for parameter in module.parameters()}
    old = {id(parameter) for parameter in one.backbone.parameters()}
    assert new | old == {id(parameter) for parameter in one.parameters()}
    assert not new & old


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"merge_width": None}, "merge_width: .*multibox_fast_rcnn"),
        ({"proposals": 0}, "proposals >= 1"),
        ({"proposal_nms": 1.1}, "proposal_nms and quality in"),
        ({"multibox_weight": -1.0}, "multibox_weight: expected at least 0"),
        ({"multibox_weight": float("nan")}, "multibox_weight: expected at least 0"),
        ({"crop_share": 2.0}, "crop_share in"),
        ({"crop_area": 0.0}, "crop_area in"),
        ({"colour": 1.0}, "colour in"),
        ({"scales": [16]}, "head.scales: expected sides of 32"),
        ({"attention": -1}, "head.attention: expected 0 to"),
        ({"attention_width": 30}, "head.attention_width: .*attention_heads=4"),
        ({"best_weight": -1.0}, "head.best_weight"),
        ({"attention_hidden": 0}, "head.attention_hidden"),
    ],
)
def test_settings_that_make_no_head(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        head(**settings)


def test_targets_are_checked_where_they_are_made() -> None:
    with pytest.raises(ValueError, match="negative_iou <= positive_iou"):
        head(multibox=MultiBoxTargetConfig(positive_iou=0.3))


def test_shapes_for_another_number_of_maps() -> None:
    with pytest.raises(ValueError, match="prior shapes for 2 maps, got 1"):
        MultiBoxFastRcnn(tiny.TinyBackbone(), 3, head(), SHAPES[:1], seed=0)
