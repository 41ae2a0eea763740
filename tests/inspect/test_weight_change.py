from __future__ import annotations

import math

import pytest
import torch

from detpipe.inspect.weight_change import parameter_change, weight_change


def test_by_hand() -> None:
    one = parameter_change("w", torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    assert one.relative == pytest.approx(4 / 3)
    assert one.cosine == pytest.approx(9 / (5 * 3))


@pytest.mark.parametrize(
    ("now", "before", "relative", "cosine"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0, 1.0),
        ([-1.0, -2.0], [1.0, 2.0], 2.0, -1.0),
        ([0.0], [0.0], 0.0, math.nan),
        ([1.0], [0.0], math.inf, math.nan),
        ([0.0], [5.0], 1.0, math.nan),
        ([math.nan], [5.0], math.nan, math.nan),
        ([math.inf], [5.0], math.nan, math.nan),
        ([], [], 0.0, math.nan),
    ],
)
def test_at_the_border(now: list[float], before: list[float], relative: float, cosine: float) -> None:
    one = parameter_change("w", torch.tensor(now), torch.tensor(before))
    assert (one.relative, one.cosine) == pytest.approx((relative, cosine), nan_ok=True)


def test_names_meet_without_the_prefixes_of_detectors() -> None:
    shared, other = torch.ones(2, 2), torch.ones(3)
    now = {"backbone.network.conv.weight": shared * 2, "backbone.network.fc.weight": other, "head.linear.bias": other}
    before = {"module.conv.weight": shared, "module.fc.weight": torch.ones(5), "module.old": other}
    change = weight_change(now, before)
    assert [(one.name, one.relative) for one in change.parameters] == [("conv.weight", 1.0)]
    assert change.other_shape == {"fc.weight": ((3,), (5,))}
    assert change.only_now == ("head.linear.bias",)
    assert change.only_before == ("old",)


def test_nothing_in_common() -> None:
    change = weight_change({}, {"a": torch.ones(1)})
    assert change.to_json() == {"parameters": {}, "only_now": [], "only_before": ["a"], "other_shape": {}}
