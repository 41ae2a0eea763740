from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from detpipe.backbone.caffe.pooling import LOWEST, Pooling
from tests.backbone.caffe.one_layer import make, run


def by_caffes_loops(x: torch.Tensor, average: bool, k: int, s: int, p: int) -> torch.Tensor:
    """One square map, window by window, by the rules that pooling_layer.cpp states."""
    size = x.shape[0]
    windows = math.ceil((size + 2 * p - k) / s) + 1
    if p and (windows - 1) * s >= size + p:
        windows -= 1
    out = torch.empty(windows, windows)
    for i in range(windows):
        for j in range(windows):
            top, left = i * s - p, j * s - p
            bottom, right = min(top + k, size + p), min(left + k, size + p)
            divisor = (bottom - top) * (right - left)
            inside = x[max(top, 0) : max(min(bottom, size), 0), max(left, 0) : max(min(right, size), 0)]
            if average:
                out[i, j] = inside.sum() / divisor if divisor else torch.nan
            else:
                out[i, j] = inside.max() if inside.numel() else LOWEST
    return out


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=300, deadline=None)
def test_equals_caffes_loops(size: int, k: int, s: int, p: int, average: bool, seed: int) -> None:
    assume(p < k <= size + 2 * p)
    x = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    wanted = by_caffes_loops(x, average, k, s, p)
    got = Pooling(average, (k, k), (s, s), (p, p))(x[None, None])[0, 0]
    torch.testing.assert_close(got, wanted, equal_nan=True)


def test_windows_over_the_border_by_hand() -> None:
    x = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    # 4 wide, kernel 3, stride 2: ceil(1 / 2) + 1 = 2 windows; the second sees 2 columns, and divides by 2 x 3.
    assert run('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', x)[0, 0].tolist() == [[11, 12], [15, 16]]
    average = run('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }', x)[0, 0]
    assert average[0].tolist() == [6.0, 7.5]  # (3 + 4 + 7 + 8 + 11 + 12) / 6


def test_the_padding_counts_in_an_average_and_never_wins_in_max() -> None:
    x = torch.full((1, 1, 2, 2), -4.0)
    average = run('type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }', x)[0, 0]
    assert average.tolist() == [[-1, -1], [-1, -1]]  # one of four places is real
    assert run('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 pad: 1 }', x).max() == -4


def test_the_clip_is_with_padding_only() -> None:
    # 3 wide, kernel 1, stride 3: ceil(2 / 3) + 1 = 2 windows, the second at 3, outside: torch would drop it.
    out = run('type: "Pooling" pooling_param { kernel_size: 1 stride: 3 }', torch.ones(1, 1, 3, 3))[0, 0]
    assert out.tolist() == [[1, LOWEST], [LOWEST, LOWEST]]
    # 5 wide, kernel 2, stride 4, pad 1: ceil(5 / 4) + 1 = 3; the third begins at 8 >= 5 + 1, and is dropped.
    padded = run('type: "Pooling" pooling_param { kernel_size: 2 stride: 4 pad: 1 }', torch.ones(1, 1, 5, 5))
    assert padded.shape == (1, 1, 2, 2)


def test_global_sides_floor_and_no_images() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert run('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', x).tolist() == [[[[5.5]], [[17.5]]]]
    assert run('type: "Pooling" pooling_param { global_pooling: true }', x).flatten().tolist() == [11, 23]
    sides = run('type: "Pooling" pooling_param { kernel_h: 1 kernel_w: 2 stride_h: 1 stride_w: 2 }', x)
    assert sides[0, 0].tolist() == [[1, 3], [5, 7], [9, 11]]
    floor = run('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR }', x)
    assert floor.shape == (1, 2, 1, 2)
    net = make('type: "Pooling" pooling_param { kernel_size: 3 }', (2, 3, 5, 5))
    assert net(torch.zeros(0, 3, 5, 5))["y"].shape == (0, 3, 3, 3)


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("", "expected kernel_size"),
        ("kernel_size: 0", "1 or more"),
        ("kernel_size: 2 stride: 0", "1 or more"),
        ("kernel_size: 2 pad: 2", "pad below the kernel"),
        ("kernel_size: 2 kernel_h: 2 kernel_w: 2", "or both kernel_h and kernel_w"),
        ("kernel_h: 2", "or both"),
        ("kernel_size: 9", "at least the kernel"),
        ("kernel_size: 4294967295", "at least the kernel"),
        (
            "kernel_size: 65536 pad: 65535 stride: 65535",
            "a padded input of at most 536870912 elements",
        ),  # 3 x 3 windows
        ("kernel_size: 2 pool: STOCHASTIC", "MAX or AVE, got STOCHASTIC"),
        ("kernel_size: 2 global_pooling: true", "without kernel"),
    ],
)
def test_wrong_settings(setting: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=rf"layer 'one' \(Pooling\): .*{wrong}"):
        make(f'type: "Pooling" pooling_param {{ {setting} }}', (1, 1, 4, 4))


def test_a_second_top_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 top, got 2"):
        make('type: "Pooling" top: "y" top: "mask" pooling_param { kernel_size: 2 }', (1, 1, 4, 4))
