from __future__ import annotations

import pytest
import torch

from tests.backbone.caffe.one_layer import make, run


def test_across_channels_by_hand() -> None:
    x = torch.tensor([1.0, 2, 3]).reshape(1, 3, 1, 1)
    y = run('type: "LRN" lrn_param { local_size: 3 alpha: 0.3 beta: 0.5 k: 2 }', x).flatten()
    # k + alpha / n * the sum of squares over three channels: 5, 14, 13 tenths.
    torch.testing.assert_close(y, torch.tensor([1 / 2.5**0.5, 2 / 3.4**0.5, 3 / 3.3**0.5]))


def test_across_channels_by_the_formula() -> None:
    x = torch.randn(2, 7, 3, 3)
    y = run('type: "LRN" lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 }', x)
    for c in range(7):
        sums = x[:, max(0, c - 2) : c + 3].square().sum(1)
        torch.testing.assert_close(y[:, c], x[:, c] * (1 + 0.5 / 5 * sums).pow(-0.75))


def test_within_channel_by_hand() -> None:
    x = torch.tensor([[1.0, 2], [3, 4]]).reshape(1, 1, 2, 2)
    settings = "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 9 beta: 1 k: 7"
    y = run(f'type: "LRN" lrn_param {{ {settings} }}', x).flatten()
    # Every window of 3 x 3 sees all four; the others of its 9 places are 0; k has no part.
    torch.testing.assert_close(y, torch.tensor([1.0, 2, 3, 4]) / 31)


def test_no_images_and_wrong_settings() -> None:
    assert make('type: "LRN"', (1, 4, 2, 2))(torch.zeros(0, 4, 2, 2))["y"].shape == (0, 4, 2, 2)
    for setting in ("local_size: 4", "local_size: 0", "local_size: 4294967295"):
        with pytest.raises(ValueError, match=r"layer 'one' \(LRN\): expected .* odd local_size"):
            make(f'type: "LRN" lrn_param {{ {setting} }}', (1, 4, 2, 2))
