from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from detpipe.inspect import tensor_statistics as module
from detpipe.inspect.tensor_statistics import TensorStatistics, histogram, tensor_statistics


def test_by_hand() -> None:
    found = tensor_statistics(torch.tensor([[0.0, 3.0], [-4.0, 1.0]]))
    # mean 0; squares 0, 9, 16, 1.
    assert found == TensorStatistics(4, 0.0, math.sqrt(26 / 4), -4.0, 3.0, 8.0, math.sqrt(26), 0.25, 0, 0)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    found = tensor_statistics(torch.tensor([math.nan, 3.0, math.inf, -4.0, -math.inf]))
    assert (found.count, found.mean, found.std, found.l2, found.nan, found.inf) == (5, -0.5, 3.5, 5.0, 1, 2)
    none = tensor_statistics(torch.tensor([math.nan]))
    assert none.to_json() | {"zeros": 0.0} == {
        **dict.fromkeys(("mean", "std", "min", "max")),
        "count": 1,
        "l1": 0.0,
        "l2": 0.0,
        "zeros": 0.0,
        "nan": 1,
        "inf": 0,
    }


def test_an_empty_tensor() -> None:
    found = tensor_statistics(torch.zeros(0, 3))
    assert (found.count, found.l1, found.l2, found.not_finite) == (0, 0.0, 0.0, 0)
    assert math.isnan(found.mean)
    assert histogram(torch.zeros(0), found, 3) == ([0, 0, 0], 0.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_pieces_give_what_numpy_gives_of_the_whole(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 7)
    tensor = (torch.randn(5, 11, generator=torch.Generator().manual_seed(0)) * 9 + 1000).to(dtype)
    numbers = tensor.double().numpy()
    found = tensor_statistics(tensor.T)
    assert found.mean == pytest.approx(numbers.mean())
    assert found.std == pytest.approx(numbers.std(), abs=1e-12)
    assert found.l1 == pytest.approx(np.abs(numbers).sum())
    counts, low, high = histogram(tensor, found, 6)
    if low < high and numbers.std():
        assert counts == np.histogram(numbers, 6, (low, high))[0].tolist()


def test_histograms_by_hand() -> None:
    def of(*numbers: float) -> tuple[list[int], float, float]:
        tensor = torch.tensor(numbers, dtype=torch.float64)
        return histogram(tensor, tensor_statistics(tensor), 4)

    assert of(0, 1, 2, 3, 4) == ([1, 1, 1, 2], 0.0, 4.0)
    assert of(2, 2) == ([0, 0, 2, 0], 1.0, 3.0)
    assert of(0) == ([0, 0, 1, 0], -0.5, 0.5)
    assert of(-1.7e308, 1.7e308, math.inf) == ([1, 0, 0, 1], -1.7e308, 1.7e308)
