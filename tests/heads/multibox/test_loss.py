"""What MultiBox learns from: by hand on two priors, against torchvision, and its gradients by finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from detpipe import boxes as geometry
from detpipe.heads.multibox.loss import Targets, confidence_loss, match, multibox_loss
from detpipe.heads.multibox.matching import BACKGROUND, IGNORED
from detpipe.heads.multibox.network import Output
from detpipe.heads.multibox.settings import Confidence, Localization, MatchedBy, Matching, MultiBoxConfig
from detpipe.structures import BoolArray, GroundTruth

PAPER = {
    "matching": Matching.bipartite,
    "localization": Localization.squared,
    "confidence": Confidence.cross_entropy,
    "location_weight": 0.3,
}
"""The settings of multibox=multibox_2014 that its loss depends on."""
PRIORS = torch.tensor([[0.0, 0, 40, 40], [60, 0, 100, 40]])
"""On an input 50 high and 100 wide."""


def head(**settings: object) -> MultiBoxConfig:
    return MultiBoxConfig(**settings)  # type: ignore[arg-type]


def output(logits: Tensor, deltas: Tensor | None = None, priors: Tensor = PRIORS) -> Output:
    deltas = torch.zeros(*logits.shape, 4, dtype=logits.dtype) if deltas is None else deltas
    return Output(logits, deltas, priors.to(logits.dtype), torch.zeros(len(priors), dtype=torch.int64), (50, 100))


def targets(*objects: list[float], weight: list[float] | None = None, dtype: torch.dtype = torch.float32) -> Targets:
    none = torch.zeros(0, 4, dtype=dtype)
    weights = torch.ones(len(objects), dtype=dtype) if weight is None else torch.tensor(weight, dtype=dtype)
    return Targets(torch.tensor(objects, dtype=dtype).reshape(-1, 4), weights, none, none)


def cross_entropy(logit: float, target: float) -> float:
    chance = 1 / (1 + math.exp(-logit))
    return -target * math.log(chance) - (1 - target) * math.log(1 - chance)


def test_the_paper_s_loss_by_hand() -> None:
    """The object is 10 to the right of the first prior and 5 below: 0.1 of the width and of the height."""
    losses = multibox_loss(output(torch.tensor([[0.5, -1.0]])), [targets([10, 5, 50, 45])], head(**PAPER))
    confidence = cross_entropy(0.5, 1) + cross_entropy(-1, 0)
    assert losses["confidence_loss"].item() == pytest.approx(confidence, rel=1e-5)
    assert losses["location_loss"].item() == pytest.approx(4 * 0.1**2 / 2, rel=1e-5)
    assert losses["loss"].item() == pytest.approx(confidence + 0.3 * 0.02, rel=1e-5)


def test_losses_are_means_over_the_matched_priors_of_a_batch() -> None:
    """Two objects in the first image, none in the second one."""
    both = output(torch.tensor([[0.5, -1.0], [2.0, 0.0]]))
    truths = [targets([60, 5, 100, 45], [10, 0, 50, 40]), targets()]
    losses = multibox_loss(both, truths, head(**PAPER))
    terms = [(0.5, 1), (-1, 1), (2, 0), (0, 0)]
    assert losses["confidence_loss"].item() == pytest.approx(sum(cross_entropy(*one) for one in terms) / 2, rel=1e-5)
    assert losses["location_loss"].item() == pytest.approx((2 * 0.1**2 + 2 * 0.1**2) / 2 / 2, rel=1e-5)


@pytest.mark.parametrize("localization", list(Localization))
def test_a_prior_that_lies_on_its_object_has_nothing_to_learn(localization: Localization) -> None:
    settings = head(**{**PAPER, "localization": localization})
    losses = multibox_loss(output(torch.tensor([[0.0, 0.0]])), [targets([0, 0, 40, 40])], settings)
    assert losses["location_loss"].item() == pytest.approx(0, abs=1e-6)


def test_smooth_l1_and_giou_by_hand() -> None:
    """The object is 10 to the right of its prior of 40 x 40: delta 0.25; IoU 30 / 50, which its hull is all of."""
    one = output(torch.tensor([[0.0, 0.0]]))
    smooth = multibox_loss(one, [targets([10, 0, 50, 40])], head(**{**PAPER, "localization": Localization.smooth_l1}))
    assert smooth["location_loss"].item() == pytest.approx(0.25 - 1 / 18, rel=1e-5)  # beyond beta of 1 / 9
    giou = multibox_loss(one, [targets([10, 0, 50, 40])], head(**{**PAPER, "localization": Localization.giou}))
    assert giou["location_loss"].item() == pytest.approx(1 - 0.6, rel=1e-5)


@pytest.mark.parametrize("confidence", list(Confidence))
def test_a_batch_without_any_object(confidence: Confidence) -> None:
    settings = head(confidence=confidence)
    logits = torch.tensor([[0.5, -1.0], [0.0, 0.0]], requires_grad=True)
    losses = multibox_loss(output(logits), [targets(), targets()], settings)
    losses["loss"].backward()
    assert losses["location_loss"].item() == 0
    assert losses["confidence_loss"].item() > 0
    assert logits.grad is not None
    assert (logits.grad > 0).all()  # all are background


def test_no_images() -> None:
    none = Output(torch.zeros(0, 2), torch.zeros(0, 2, 4), PRIORS, torch.zeros(2, dtype=torch.int64), (50, 100))
    matched = torch.zeros(0, 2, dtype=torch.int64)
    assert confidence_loss(none.logits, matched, torch.zeros(0), head(negatives=None)).item() == 0


def test_quality_teaches_the_iou() -> None:
    """The prior overlaps its object by 0.6: a logit of that chance has no gradient, others are drawn to it."""
    settings = head(confidence=Confidence.quality, location_weight=0)
    logit = math.log(0.6 / 0.4)
    for start, sign in ((logit, 0), (logit - 1, -1), (logit + 1, 1)):
        logits = torch.tensor([[start, -30.0]], requires_grad=True)
        multibox_loss(output(logits), [targets([10, 0, 50, 40])], settings)["loss"].backward()
        assert logits.grad is not None
        assert np.sign(round(logits.grad[0, 0].item(), 5)) == sign


def test_quality_by_hand() -> None:
    settings = head(confidence=Confidence.quality)
    losses = multibox_loss(output(torch.tensor([[0.0, -1.0]])), [targets([10, 0, 50, 40])], settings)
    background = 1 / (1 + math.e)
    wanted = cross_entropy(0, 0.6) * 0.1**2 + cross_entropy(-1, 0) * background**2
    assert losses["confidence_loss"].item() == pytest.approx(wanted, rel=1e-5)


def test_a_weight_lowers_the_target_confidence() -> None:
    cross = multibox_loss(output(torch.tensor([[0.5, -1.0]])), [targets([0, 0, 40, 40], weight=[0.25])], head(**PAPER))
    wanted = cross_entropy(0.5, 0.25) + cross_entropy(-1, 0)
    assert cross["confidence_loss"].item() == pytest.approx(wanted, rel=1e-5)
    settings = head(confidence=Confidence.quality)
    quality = multibox_loss(output(torch.tensor([[0.0, -30.0]])), [targets([10, 0, 50, 40], weight=[0.5])], settings)
    assert quality["confidence_loss"].item() == pytest.approx(cross_entropy(0, 0.3) * 0.2**2, rel=1e-4)


def test_focal_is_torchvision_s() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 50, generator=generator) * 3
    matches = torch.randint(-1, 2, (3, 50), generator=generator)
    found = confidence_loss(logits, matches, torch.ones(int((matches >= 0).sum())), head(confidence=Confidence.focal))
    wanted = sigmoid_focal_loss(logits, (matches >= 0).float(), alpha=0.25, gamma=2, reduction="sum")
    torch.testing.assert_close(found, wanted)


def test_of_hard_negatives_the_hardest_count() -> None:
    """Two for each matched prior: of the first image 2 of 3, of the second, which has no object, 2 of 4."""
    logits = torch.tensor([[1.0, 3.0, -1.0, 2.0, 9.0], [0.0, 1.0, 2.0, -3.0, 9.0]])
    matches = torch.tensor([[0, BACKGROUND, BACKGROUND, BACKGROUND, IGNORED], [BACKGROUND] * 4 + [IGNORED]])
    settings = head(confidence=Confidence.cross_entropy, negatives=2)
    found = confidence_loss(logits, matches, torch.ones(1), settings)
    terms = [(1, 1), (3, 0), (2, 0), (2, 0), (1, 0)]
    assert found.item() == pytest.approx(sum(cross_entropy(*one) for one in terms), rel=1e-5)
    every = confidence_loss(logits, matches, torch.ones(1), head(confidence=Confidence.cross_entropy))
    terms += [(-1, 0), (0, 0), (-3, 0)]
    assert every.item() == pytest.approx(sum(cross_entropy(*one) for one in terms), rel=1e-5)


def truth(boxes: list[list[float]], difficult: list[bool], crowd: list[bool]) -> GroundTruth:
    plain = GroundTruth.from_boxes(boxes, [1] * len(boxes))

    def flags(values: list[bool]) -> BoolArray:
        return np.array(values, dtype=np.bool_)

    return GroundTruth(plain.boxes, plain.labels, flags(difficult), flags(crowd), plain.areas)


def test_what_an_image_teaches() -> None:
    """A difficult object and a crowd teach nothing, nor does one without an area."""
    boxes = [[0, 0, 9, 9], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 3, 8], [4, 4, 8, 8]]
    seen = truth(boxes, [False, True, False, False, True], [False, False, True, False, True])
    one = Targets.of(seen, np.arange(5, dtype=np.float32), torch.device("cpu"))
    assert one.objects.tolist() == boxes[:1]
    assert one.weight.tolist() == [0]
    assert one.difficult.tolist() == boxes[1:2]
    assert one.crowds.tolist() == [boxes[2], boxes[4]]
    none = Targets.of(GroundTruth.from_boxes([], []), np.zeros(0, dtype=np.float32), torch.device("cpu"))
    assert [len(part) for part in (none.objects, none.weight, none.difficult, none.crowds)] == [0] * 4


@pytest.mark.parametrize("matching", list(Matching))
@pytest.mark.parametrize(
    ("box", "is_crowd", "ignored"),
    [
        ([0, 0, 40, 20], False, True),  # difficult: half of the first prior
        ([0, 0, 40, 19], False, False),
        ([0, 0, 1000, 1000], False, False),  # IoU far below a half
        ([0, 0, 50, 1000], True, True),  # in a crowd: all of the first prior, by its own share
        ([0, 0, 20, 1000], True, True),  # half of it
        ([0, 0, 19, 1000], True, False),
    ],
)
def test_priors_on_difficult_objects_and_crowds_are_ignored(
    matching: Matching, box: list[float], is_crowd: bool, ignored: bool
) -> None:
    one = Targets.of(truth([box], [not is_crowd], [is_crowd]), np.ones(1, dtype=np.float32), torch.device("cpu"))
    found = match(output(torch.zeros(1, 2)), 0, one, head(matching=matching))
    assert found.tolist() == [IGNORED if ignored else BACKGROUND, BACKGROUND]


def test_an_object_s_prior_is_taught_in_a_crowd_too() -> None:
    boxes = [[0, 0, 40, 40], [0, 0, 50, 50]]
    one = Targets.of(truth(boxes, [False] * 2, [False, True]), np.ones(2, dtype=np.float32), torch.device("cpu"))
    assert match(output(torch.zeros(1, 2)), 0, one, head(**PAPER)).tolist() == [0, BACKGROUND]


def test_objects_without_an_area_leave_background() -> None:
    seen = truth([[5, 5, 5, 30], [5, 5, 30, 5]], [False] * 2, [False] * 2)
    one = Targets.of(seen, np.ones(2, dtype=np.float32), torch.device("cpu"))
    losses = multibox_loss(output(torch.tensor([[0.5, -1.0]])), [one], head())
    assert losses["location_loss"].item() == 0
    assert losses["loss"].isfinite()


def test_a_confident_prediction_that_is_far_is_preferred_by_the_formula() -> None:
    """0.15 |l - g|^2 minus the logit: the second prior is 0.6 of the width away at both corners, so 0.108 dearer."""
    settings = head(**PAPER, matched_by=MatchedBy.prediction)
    one = targets([0, 0, 40, 40])
    for lead, wanted in ((0.107, [0, BACKGROUND]), (0.109, [BACKGROUND, 0])):
        assert match(output(torch.tensor([[0.0, lead]])), 0, one, settings).tolist() == wanted
    by_prior = head(**PAPER)
    assert match(output(torch.tensor([[0.0, 9.0]])), 0, one, by_prior).tolist() == [0, BACKGROUND]


def test_predictions_are_matched_where_they_have_moved_to() -> None:
    """The first prior has left for the second one's place, and the other way round."""
    deltas = torch.tensor([[[0.6, 0, 0.6, 0], [-0.6, 0, -0.6, 0]]])
    settings = head(**PAPER, matched_by=MatchedBy.prediction)
    assert match(output(torch.zeros(1, 2), deltas), 0, targets([0, 0, 40, 40]), settings).tolist() == [BACKGROUND, 0]


PAIRS = list(itertools.product(Localization, Confidence))


@pytest.mark.parametrize(("localization", "confidence"), PAIRS)
@pytest.mark.parametrize("negatives", [None, 1])
def test_gradients_are_the_finite_differences(
    localization: Localization, confidence: Confidence, negatives: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quality that is taught is a constant, so it is held at its value here; that it is one in training, too, is
    seen as the gradients are the same with and without."""
    settings = head(localization=localization, confidence=confidence, negatives=negatives)
    generator = torch.Generator().manual_seed(3)
    priors = torch.tensor([[0.0, 0, 40, 40], [60, 0, 100, 40], [30, 10, 70, 50], [5, 5, 25, 30]], dtype=torch.float64)
    logits = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    deltas = (0.1 * torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    truths = [
        targets([7, 3, 50, 45], [55, 5, 93, 44], weight=[1, 0.5], dtype=torch.float64),
        targets([2, 8, 28, 33], dtype=torch.float64),
    ]

    def loss(logits: Tensor, deltas: Tensor) -> Tensor:
        return multibox_loss(output(logits, deltas, priors), truths, settings)["loss"]

    free = torch.autograd.grad(loss(logits, deltas), (logits, deltas))
    paired_iou_tensors, overlaps = geometry.paired_iou_tensors, list[Tensor]()

    def fixed(boxes: Tensor, objects: Tensor) -> Tensor:
        if not overlaps:
            overlaps.append(paired_iou_tensors(boxes, objects).detach())
        return overlaps[0]

    monkeypatch.setattr(geometry, "paired_iou_tensors", fixed)
    held = torch.autograd.grad(loss(logits, deltas), (logits, deltas))
    for one, other in zip(free, held, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert torch.autograd.gradcheck(loss, (logits, deltas))
