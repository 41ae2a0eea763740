"""A layer as two thinner ones: exact at full rank, best of its rank below it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detpipe.heads.fast_rcnn.truncated_svd import kept_share, split_linear, truncated


def layer(width_in: int = 6, width_out: int = 4) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width_in, width_out)


def test_full_rank_is_the_layer_itself() -> None:
    one, x = layer(), torch.randn(5, 6)
    torch.testing.assert_close(truncated(one, 4)(x), one(x))
    assert kept_share(one, 4) == pytest.approx(1)


def test_a_layer_of_rank_one_needs_no_more() -> None:
    one = layer()
    with torch.no_grad():
        one.weight.copy_(torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 7)))
    pair, x = truncated(one, 1), torch.randn(3, 6)
    torch.testing.assert_close(pair(x), one(x), rtol=1e-4, atol=1e-4)
    assert [p.numel() for p in pair.parameters()] == [6, 4, 4]


def test_what_is_lost_is_the_smallest_singular_values() -> None:
    one = layer()
    pair = truncated(one, 2)
    thin, thick = pair[0], pair[1]
    assert isinstance(thin, nn.Linear)
    assert isinstance(thick, nn.Linear)
    values = torch.linalg.svdvals(one.weight.detach())
    lost = (one.weight - thick.weight @ thin.weight).detach().square().sum()
    torch.testing.assert_close(lost, values[2:].square().sum())
    assert kept_share(one, 2) == pytest.approx(float(1 - lost / one.weight.detach().square().sum()))


def test_nothing_in_nothing_out() -> None:
    assert truncated(layer(), 2)(torch.zeros(0, 6)).shape == (0, 4)


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_that_is_none(rank: int) -> None:
    with pytest.raises(ValueError, match="expected a rank of 1 to 4"):
        split_linear(6, 4, rank)
