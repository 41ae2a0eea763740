"""MultiBox's network: deltas there and back, how many predictions each form makes, which boxes are the best."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detpipe.backbone.create import create_from_seed
from detpipe.backbone.settings import BackboneConfig
from detpipe.heads.multibox.network import INITIAL_CONFIDENCE, MultiBox, Output, best_boxes, decode, encode, make_shapes
from detpipe.heads.multibox.priors import centred
from detpipe.heads.multibox.settings import Form, Localization, MatchedBy, MultiBoxConfig
from detpipe.structures import Float32Array
from tests import drawn
from tests.classify import tiny

SIZES = (64, 96)
"""Height and width of the images here."""


def head(**more: object) -> MultiBoxConfig:
    settings = {"maps": ["stem"], "width": 6, "hidden": 5, "scales": [64], "priors": 2, **more}
    return MultiBoxConfig(**settings)  # type: ignore[arg-type]


def squares(*sides: float) -> Float32Array:
    return centred(np.array([[side, side] for side in sides], dtype=np.float32).reshape(-1, 2))


def network(shapes: list[Float32Array] | None = None, seed: int = 0, **more: object) -> MultiBox:
    """On maps of stride 4 and 8."""
    torch.manual_seed(7)
    shapes = [squares(8, 16), squares(30)] if shapes is None else shapes
    return MultiBox(tiny.TinyBackbone(), head(**more), shapes, seed=seed).eval()


def images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *SIZES, 3), dtype=torch.uint8, generator=generator)


@st.composite
def solid_boxes(draw: st.DrawFn, count: int) -> Tensor:
    numbers = st.tuples(*[st.floats(-40, 40)] * 2, *[st.floats(2, 60)] * 2)
    rows = draw(st.lists(numbers, min_size=count, max_size=count))
    return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float64).reshape(-1, 4)


@given(st.integers(0, 5).flatmap(lambda n: st.tuples(solid_boxes(n), solid_boxes(n))), st.booleans())
def test_moves_bring_priors_onto_boxes(both: tuple[Tensor, Tensor], by_corners: bool) -> None:
    priors, boxes = both
    deltas = encode(priors, boxes, (50, 80), by_corners=by_corners)
    output = Output(deltas[None, :, 0], deltas[None], priors, torch.zeros(len(priors)), (50, 80))
    torch.testing.assert_close(decode(output, by_corners=by_corners)[0], boxes)


def test_corners_move_in_sides_of_the_input() -> None:
    """The input is 50 high and 80 wide."""
    prior, box = torch.tensor([[8.0, 10, 16, 20]]), torch.tensor([[16.0, 10, 32, 15]])
    deltas = encode(prior, box, (50, 80), by_corners=True)
    torch.testing.assert_close(deltas, torch.tensor([[0.1, 0, 0.2, -0.1]]))


def test_the_best_boxes_by_hand() -> None:
    boxes = torch.tensor([
        [0.0, 0, 10, 10], [0, 0, 10, 9],  # 0.9 of each other
        [15, 5, 40, 40],  # reaches over the image, whose part is 5 x 5
        [30, 0, 40, 5],  # beside the image
        [5, 5, 5, 9], [6, 6, 4, 9],  # no area, and sides the wrong way round
    ])  # fmt: skip
    logits = torch.tensor([0.0, 1.0, 2.0, 9.0, 8.0, 7.0])
    kept, scores = best_boxes(boxes, logits, (10, 20), count=5, nms_iou=0.5)
    assert kept.tolist() == [[15, 5, 20, 10], [0, 0, 10, 9]]
    torch.testing.assert_close(scores, torch.tensor([2.0, 1.0]).sigmoid())
    assert len(best_boxes(boxes, logits, (10, 20), count=5, nms_iou=0.95)[0]) == 3
    all_of_them = best_boxes(boxes, logits, (10, 20), count=5, nms_iou=1)[0]
    assert all_of_them.tolist() == [[15, 5, 20, 10], [0, 0, 10, 9], [0, 0, 10, 10]]
    assert best_boxes(boxes, logits, (10, 20), count=1, nms_iou=0.5)[0].tolist() == [[15, 5, 20, 10]]


def test_an_overlap_that_equals_nms_iou_drops_no_box() -> None:
    """IoU 3 / 10: its float32 is larger than 0.3 in double precision."""
    boxes, logits = torch.tensor([[0.0, 0, 6.5, 1], [3.5, 0, 10, 1]]), torch.tensor([1.0, 0.0])
    assert len(best_boxes(boxes, logits, (10, 10), count=2, nms_iou=0.3)[0]) == 2


def test_no_predictions() -> None:
    for nms_iou in (0.5, 1):
        boxes, scores = best_boxes(torch.zeros(0, 4), torch.zeros(0), (10, 20), count=5, nms_iou=nms_iou)
        assert (boxes.shape, scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_a_pyramid_of_a_real_network(size: tuple[int, int]) -> None:
    """At strides 8, 16, 32 and 64."""
    config = head(maps=["stride8", "stride16", "stride32"])
    backbone = create_from_seed(BackboneConfig(weights="none"), 0)
    shapes = [squares(10, 20), squares(40), squares(), squares(50, 60, 64)]
    output = MultiBox(backbone, config, shapes, seed=0).eval()(drawn_input(size))
    cells = [size[0] * size[1] // stride**2 for stride in (8, 16, 64)]
    assert_predictions(output, 2 * cells[0] + cells[1] + 3 * cells[2])
    # What number each prior's shape has among all six.
    counts = torch.bincount(output.shape_index).tolist()
    assert counts == [cells[0], cells[0], cells[1], cells[2], cells[2], cells[2]]


@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(weights="none"),
        BackboneConfig(name="torchvision/resnet18", weights="none"),
        BackboneConfig(name="caffe", prototxt="googlenet", weights="none", mean=[104, 117, 123]),
    ],
    ids=lambda config: config.name,
)
@pytest.mark.parametrize(("form", "count"), [(Form.grids, 1420), (Form.whole, 3), (Form.pyramid, 64 + 4)])
def test_the_forms_on_networks_of_several_kinds(config: BackboneConfig, form: Form, count: int) -> None:
    """The pyramid has a shape at the 64 cells of stride 8, and one at the 4 cells of stride 32."""
    settings = head(form=form, maps=["stride8", "stride32"] if form is Form.pyramid else ["stride32"], priors=3)
    boxes = np.array([[0, 0, 40, 20], [30, 30, 60, 60], [5, 10, 60, 64]], dtype=np.float32)
    sizes = np.full((3, 2), 64, dtype=np.float32)
    shapes = [squares(10), squares(30), squares()]
    if form is not Form.pyramid:
        shapes = make_shapes(settings, [32], boxes, sizes, seed=0)
    output = MultiBox(create_from_seed(config, 0), settings, shapes, seed=0).eval()(drawn_input((64, 64)))
    assert_predictions(output, count)
    if form is Form.whole:
        assert sorted(output.priors.tolist()) == sorted(boxes.tolist())  # as many as wanted: the objects' own places


def drawn_input(size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(drawn.draw(3)[0][None, : size[0], : size[1]].copy())


def assert_predictions(output: Output, count: int) -> None:
    assert output.logits.shape == (1, count)
    assert output.deltas.shape == (1, count, 4)
    assert output.priors.shape == (count, 4)
    assert output.shape_index.shape == (count,)
    assert output.logits.isfinite().all()
    assert output.deltas.isfinite().all()


def test_shapes_of_the_pyramid_are_as_large_as_training_shows_the_objects() -> None:
    """Images of 100 x 200 come at 50 x 100; one of 100 x 800 at no more than 400, so at half its size too."""
    settings = head(scales=[32, 50], max_side=400, priors=2)
    boxes = np.array([[10, 10, 30, 50], [100, 0, 500, 100]], dtype=np.float32)
    sizes = np.array([[100, 200], [100, 800]], dtype=np.float32)
    shapes = make_shapes(settings, [4], boxes, sizes, seed=0)  # 6 cells of stride 4 and 8: 24 and 48 pixels
    np.testing.assert_allclose(shapes[0], [[-5, -10, 5, 10]], rtol=1e-5)
    np.testing.assert_allclose(shapes[1], [[-100, -25, 100, 25]], rtol=1e-5)
    finer = make_shapes(head(scales=[32, 50], max_side=400, priors=2, cells=12), [4], boxes, sizes, seed=0)
    assert [len(one) for one in finer] == [1, 1]  # 48 and 96 pixels: of sides of 14 and 100
    finest = make_shapes(head(scales=[32, 50], max_side=400, priors=2, cells=40), [4], boxes, sizes, seed=0)
    assert [len(one) for one in finest] == [2, 0]
    no_coarser = make_shapes(head(scales=[32, 50], max_side=400, priors=2, coarser=False), [4], boxes, sizes, seed=0)
    assert [len(one) for one in no_coarser] == [2, 0]
    with pytest.raises(ValueError, match="expected objects to cluster"):
        make_shapes(settings, [4], boxes[:0], sizes[:0], seed=0)
    with pytest.raises(ValueError, match="expected objects to cluster"):
        make_shapes(head(form=Form.whole), [4], boxes[:0], sizes[:0], seed=0)
    assert len(make_shapes(head(form=Form.grids), [4], boxes[:0], sizes[:0], seed=0)) == 6


def test_a_map_without_shapes_is_passed_over() -> None:
    output = network([squares(), squares(30)])(images())
    assert output.logits.shape == (2, 8 * 12)
    assert output.priors[0].tolist() == [4 - 15, 4 - 15, 4 + 15, 4 + 15]  # of stride 8
    only_first = network([squares(8), squares()])(images())
    assert only_first.logits.shape == (2, 16 * 24)


@pytest.mark.parametrize("form", list(Form))
def test_no_images(form: Form) -> None:
    one = network([squares(8)] * {Form.pyramid: 2, Form.grids: 6, Form.whole: 1}[form], form=form)
    count = len(one(images(1)).priors)
    output = one(images(0))
    assert output.logits.shape == (0, count)
    assert output.deltas.shape == (0, count, 4)
    assert one.predictor.boxes(output).shape == (0, count, 4)


@pytest.mark.parametrize("localization", [Localization.squared, Localization.giou])
def test_at_first_boxes_are_priors_and_hardly_any_is_believed(localization: Localization) -> None:
    one = network(localization=localization)
    with torch.no_grad():
        for layer in one.predictor.outputs:
            layer.weight.zero_()
        output = one(images())
    torch.testing.assert_close(one.predictor.boxes(output), output.priors.expand(2, -1, 4))
    torch.testing.assert_close(output.logits.sigmoid(), torch.full_like(output.logits, INITIAL_CONFIDENCE))


def test_a_prior_sees_its_own_place() -> None:
    """Another colour at the lower right changes no logit of the upper left, and changes those where it is."""
    one = network()
    with torch.no_grad():
        one.neck.merge.inner_blocks[0][0].weight.mul_(10)
        pixels = images(1)
        before = one(pixels)
        pixels[:, 48:, 72:] = 255
        after = one(pixels)
    changed = (before.logits != after.logits)[0]
    centres = (before.priors[:, :2] + before.priors[:, 2:]) / 2
    # The neck and the predictor look one cell around, of 8 pixels at most.
    touched = ((centres + 24) > torch.tensor([72.0, 48.0])).all(dim=1)
    inside = (centres > torch.tensor([72.0, 48.0])).all(dim=1)
    assert not changed[~touched].any()
    assert changed[inside].all()


@pytest.mark.parametrize("form", list(Form))
def test_new_layers_are_the_seed_s_whatever_the_global_generator_is(form: Form) -> None:
    shapes = [squares(8)] * {Form.pyramid: 2, Form.grids: 6, Form.whole: 1}[form]
    first, other = network(shapes, form=form), network(shapes, seed=1, form=form)
    torch.manual_seed(99)
    again = MultiBox(tiny.TinyBackbone(), head(form=form), shapes, seed=0)
    for module in range(2):
        for own, same, different in zip(
            *(one.new_modules[module].parameters() for one in (first, again, other)), strict=True
        ):
            torch.testing.assert_close(own, same, rtol=0, atol=0)
            assert own.ndim == 1 or not torch.equal(own, different)  # biases aren't drawn


def test_calibration_changes_logits_by_slope_and_offset() -> None:
    one = network()
    with torch.no_grad():
        before = one(images())
        one.predictor.calibration[1] = torch.tensor([2.0, -0.5])
        after = one(images())
    own = before.shape_index == 1
    torch.testing.assert_close(after.logits[:, own], 2 * before.logits[:, own] - 0.5)
    torch.testing.assert_close(after.logits[:, ~own], before.logits[:, ~own], rtol=0, atol=0)
    torch.testing.assert_close(after.deltas, before.deltas, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"maps": []}, "expected maps"),
        ({"scales": []}, "scales of at least 32"),
        ({"scales": [64, 31]}, "scales of at least 32"),
        ({"width": 0}, r"multibox\.width: expected at least 1, got 0"),
        ({"priors": 0}, r"multibox\.priors"),
        ({"hidden": 0}, r"multibox\.hidden"),
        ({"max_side": 0}, r"multibox\.max_side"),
        ({"negative_iou": 0.6}, "negative_iou <= positive_iou"),
        ({"positive_iou": 1.1}, "negative_iou <= positive_iou"),
        ({"positive_iou": math.nan}, "negative_iou <= positive_iou"),
        ({"at_least": -1}, "at_least >= 0"),
        ({"matched_by": MatchedBy.prediction}, "matching=bipartite"),
        ({"negatives": 0}, r"multibox\.negatives"),
        ({"crop_share": 1.1}, "crop_share in"),
        ({"crop_area": 0}, "crop_area in"),
        ({"colour": 1}, "colour in"),
        ({"location_weight": -1}, "location_weight"),
        ({"location_weight": math.nan}, "location_weight"),
    ],
)
def test_settings_that_make_no_head(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        head(**settings)


def test_a_map_that_the_backbone_has_not() -> None:
    with pytest.raises(ValueError, match=r"no feature map \['stride8'\]; it has \['stem'\]"):
        network(maps=["stride8"])


def test_shapes_of_another_number_of_maps() -> None:
    with pytest.raises(ValueError, match="expected prior shapes for 2 maps, got 3"):
        network([squares(8)] * 3)


def test_first_weights_before_the_predictions_have_the_gain_of_the_setting() -> None:
    for gain in (2.0, 0.1):
        weight = network(width=64, start_gain=gain).predictor.shared.weight.detach()
        assert float(weight.var()) * weight[0].numel() == pytest.approx(gain, rel=0.05)


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan])
def test_first_weights_of_no_size(gain: float) -> None:
    with pytest.raises(ValueError, match=r"multibox\.start_gain: expected a number above 0"):
        head(start_gain=gain)
