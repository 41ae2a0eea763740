"""mixup: images and losses by hand, the weights' range, what a rank sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detpipe.classify.mixup import Mixing, draw_mixing
from detpipe.heads.softmax import softmax_loss


def test_images_and_losses_by_hand() -> None:
    mixing = Mixing(np.array([0.75, 0.5], dtype=np.float32))
    images = torch.tensor([100, 200], dtype=torch.uint8).reshape(2, 1, 1, 1)
    assert mixing.images(images).flatten().tolist() == [125, 150]
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1])
    to_0, to_1 = (softmax_loss(logits, torch.full((2,), k), reduction="none") for k in (0, 1))
    wanted = (0.75 * to_0[0] + 0.25 * to_1[0] + 0.5 * to_1[1] + 0.5 * to_0[1]) / 2
    assert mixing.loss(logits, labels, 0.0) == pytest.approx(float(wanted))


def test_a_whole_weight_changes_nothing() -> None:
    mixing = Mixing(np.ones(3, dtype=np.float32))
    images = torch.arange(3, dtype=torch.uint8).reshape(3, 1, 1, 1)
    assert torch.equal(mixing.images(images), images)
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    assert mixing.loss(logits, labels, 0.1) == pytest.approx(float(softmax_loss(logits, labels, 0.1)))


def test_weights_are_those_of_the_whole_batch_and_at_least_a_half() -> None:
    whole = draw_mixing(np.random.default_rng(0), 50, 0.4, slice(None))
    second = draw_mixing(np.random.default_rng(0), 50, 0.4, slice(1, 50, 2))
    assert whole is not None
    assert second is not None
    assert 0.5 <= whole.weights.min() <= whole.weights.max() <= 1
    np.testing.assert_array_equal(second.weights, whole.weights[1::2])


def test_none_are_mixed_by_default_and_an_empty_batch_stays_empty() -> None:
    assert draw_mixing(np.random.default_rng(0), 50, 0.0, slice(None)) is None
    empty = draw_mixing(np.random.default_rng(0), 0, 1.0, slice(None))
    assert empty is not None
    assert empty.images(torch.zeros(0, 2, 2, 3, dtype=torch.uint8)).shape == (0, 2, 2, 3)
