"""Features of whole images: equal images have equal ones, others do not, and sizes may differ."""

from __future__ import annotations

import numpy as np
import torch

from detpipe.backbone.create import create_from_seed
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.image_features import image_features

CPU = torch.device("cpu")


def test_images_of_any_size() -> None:
    backbone = create_from_seed(BackboneConfig(weights="none"), 0)
    generator = np.random.default_rng(0)
    one, other = (generator.integers(0, 255, size, dtype=np.uint8) for size in ((40, 60, 3), (90, 30, 3)))
    first, second, third = image_features(backbone, [one, other, one], CPU)
    assert first.shape == (320,)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, third)
    assert np.abs(first - second).max() > 0
    assert list(image_features(backbone, [], CPU)) == []
