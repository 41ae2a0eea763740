"""The softmax head and its loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from detpipe.heads.softmax import SoftmaxHead, softmax_loss


def test_shapes_and_start() -> None:
    head = SoftmaxHead(1000, 21, generator=torch.Generator().manual_seed(0))
    assert head(torch.zeros(5, 1000)).tolist() == [[0.0] * 21] * 5
    assert head(torch.zeros(0, 1000)).shape == (0, 21)
    weight = head.linear.weight.detach()
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(weight.mean())) < 0.001


def test_the_start_is_the_generators_and_not_the_global_ones() -> None:
    torch.manual_seed(1)
    one = SoftmaxHead(8, 3, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    two = SoftmaxHead(8, 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(one.linear.weight, two.linear.weight)
    assert not torch.equal(one.linear.weight, SoftmaxHead(8, 3, generator=torch.Generator()).linear.weight)


def test_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    labels = torch.tensor([2, 0])
    assert float(softmax_loss(logits, labels)) == pytest.approx((math.log(3) - math.log(2 / 4)) / 2)
    # With smoothing e: (1 - e) of the loss above, e of the mean over all classes.
    smooth = (math.log(3) + (math.log(2) * 0.7 + 0.3 * (math.log(2) + 2 * math.log(4)) / 3)) / 2
    assert float(softmax_loss(logits, labels, 0.3)) == pytest.approx(smooth)


def test_loss_is_float32_for_bf16_logits() -> None:
    loss = softmax_loss(torch.zeros(2, 3, dtype=torch.bfloat16), torch.tensor([0, 1]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(3))
