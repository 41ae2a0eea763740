from __future__ import annotations

import math

import pytest
import torch

from detpipe.backbone.caffe.caffe_net_pb2 import FillerParameter
from detpipe.backbone.caffe.fillers import fill


def filled(shape: tuple[int, ...], seed: int = 0, **settings: object) -> torch.Tensor:
    tensor = torch.full(shape, torch.nan)
    fill(tensor, FillerParameter(**settings), torch.Generator().manual_seed(seed))
    return tensor


def is_uniform(x: torch.Tensor, low: float, high: float) -> bool:
    """Kolmogorov and Smirnov's distance at a level of one in a million."""
    x = ((x.flatten().double() - low) / (high - low)).sort().values
    steps = torch.arange(1, len(x) + 1) / len(x)
    return bool((x - steps).abs().max() < math.sqrt(math.log(2e6) / 2 / len(x)))


def is_normal(x: torch.Tensor, mean: float, std: float) -> bool:
    return is_uniform(torch.special.ndtr((x.double() - mean) / std), 0, 1)


def test_constant() -> None:
    assert filled((2, 3)).eq(0).all()
    assert filled((2, 3), type="constant", value=0.5).eq(0.5).all()


def test_uniform_and_gaussian() -> None:
    assert is_uniform(filled((100, 100), type="uniform", min=-2, max=6), -2, 6)
    assert is_uniform(filled((100, 100), type="uniform"), 0, 1)
    x = filled((100, 100), type="gaussian", mean=1, std=0.01)
    assert is_normal(x, 1, 0.01)
    assert not is_normal(x, 1, 0.02)  # the test can fail


def test_sparse_gaussian_keeps_so_many_outputs_of_each_input() -> None:
    x = filled((50, 2000), type="gaussian", std=2, sparse=15)
    kept = (x != 0).sum(0).double()
    assert kept.mean().item() == pytest.approx(15, abs=0.3)
    assert kept.var().item() == pytest.approx(50 * 0.3 * 0.7, rel=0.2)  # a binomial's
    assert is_normal(x[x != 0], 0, 2)
    assert filled((4, 4), type="gaussian", sparse=0).eq(0).all()
    with pytest.raises(ValueError, match="sparse of at most 4 outputs"):
        filled((4, 4), type="gaussian", sparse=5)


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 90), ("FAN_OUT", 360), ("AVERAGE", 225)])
def test_xavier_and_msra_by_each_fan(norm: str, n: int) -> None:
    shape = (40, 10, 3, 3)  # fan-in 10 * 9, fan-out 40 * 9
    bound = math.sqrt(3 / n)
    assert is_uniform(filled(shape, type="xavier", variance_norm=norm), -bound, bound)
    assert is_normal(filled(shape, type="msra", variance_norm=norm), 0, math.sqrt(2 / n))


def test_bilinear_by_hand() -> None:
    x = filled((2, 1, 4, 4), type="bilinear")
    assert x[0, 0, 0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]  # 1/4 3/4 3/4 1/4, times 1/4
    assert torch.equal(x[0], x[1])
    assert filled((1, 1, 3, 3), type="bilinear")[0, 0, 1].tolist() == [0.5, 1, 0.5]
    with pytest.raises(ValueError, match="a square kernel"):
        filled((1, 1, 3, 4), type="bilinear")


def test_positive_unitball_sums_to_one() -> None:
    x = filled((5, 7), type="positive_unitball")
    assert (x > 0).all()
    torch.testing.assert_close(x.sum(1), torch.ones(5))


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "xavier", "msra", "positive_unitball"])
def test_the_generator_alone_decides(kind: str) -> None:
    torch.manual_seed(1)
    first = filled((3, 4), type=kind)
    torch.manual_seed(2)
    assert torch.equal(first, filled((3, 4), type=kind))
    assert not torch.equal(first, filled((3, 4), seed=1, type=kind))


def test_nothing_to_fill_and_wrong_settings() -> None:
    assert filled((0, 3), type="xavier").numel() == 0
    with pytest.raises(ValueError, match=r"constant, gaussian, .*, got 'orthogonal'"):
        filled((2, 2), type="orthogonal")
    with pytest.raises(ValueError, match="min <= max"):
        filled((2, 2), type="uniform", min=2, max=1)
    with pytest.raises(ValueError, match="std of 0 or more"):
        filled((2, 2), type="gaussian", std=-1)


def test_unitball_of_biases_and_of_one_number() -> None:
    """Each outer index is brought to the sum 1: of a row of biases each is one."""
    assert filled((3,), type="positive_unitball").tolist() == [1, 1, 1]
    assert filled((), type="positive_unitball").item() == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "uniform", "min": -3e38, "max": 3e38},
        {"type": "uniform", "min": math.nan},
        {"type": "uniform", "min": -math.inf},
        {"type": "gaussian", "std": math.nan},
        {"type": "gaussian", "mean": math.inf},
        {"type": "constant", "value": math.nan},
    ],
)
def test_numbers_that_can_not_be_drawn(settings: dict) -> None:
    with pytest.raises(ValueError, match="filler: expected"):
        filled((2, 2), **settings)
