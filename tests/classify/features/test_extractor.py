"""Features of a frozen backbone: their order, batches, boxes under every scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.features.extractor import RegionFeatures, network_digest, shown_size
from detpipe.classify.features.geometry import COLUMNS, mirrored_geometry, region_geometry
from detpipe.classify.features.settings import FeatureConfig

BOXES = np.array([[2, 3, 40, 50], [10, 0, 90, 70], [0, 0, 100, 80]], np.float32)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_backbone(BackboneConfig(weights="none"))


def extractor(backbone: Backbone, **settings: object) -> RegionFeatures:
    config = FeatureConfig(**settings)  # type: ignore[arg-type]
    device = torch.device("cpu")
    return RegionFeatures(backbone, CropConfig(size=32), config, device=device, bf16=False, batch_size=4)


def image_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (80, 100, 3), dtype=np.uint8)


def test_width_and_no_regions(backbone: Backbone) -> None:
    for settings, width in (
        ({"image_sides": []}, 1280),
        ({"image_sides": [64], "grid": 2}, 1280 + 4 * (112 + 320) + 320),
        ({"image_sides": [64, 96], "grid": 1, "crops": False}, 2 * (112 + 320 + 320)),
    ):
        features = extractor(backbone, **settings)
        assert features.width == width
        found = list(features.features([(image_of(0), BOXES[:0]), (image_of(1), BOXES)]))
        assert [one.shape for one in found] == [(0, width), (3, width)]


def test_an_image_alone_gives_what_it_gives_among_others(backbone: Backbone) -> None:
    features = extractor(backbone, image_sides=[64])
    together = list(features.features((image_of(seed), BOXES) for seed in range(3)))
    for seed, among in enumerate(together):
        np.testing.assert_allclose(next(features.features([(image_of(seed), BOXES)])), among, atol=1e-4)


def test_any_number_of_threads_gives_the_same_bits(backbone: Backbone) -> None:
    features, before = extractor(backbone, crops=False, image_sides=[64, 96], mirrored=True), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(list(features.features((image_of(seed), BOXES[: seed % 4]) for seed in range(6))))
    finally:
        torch.set_num_threads(before)
    assert [one.shape for one in found[0]] == [(seed % 4, features.width) for seed in range(6)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_region_far_from_the_border_of_a_flat_image_sees_what_all_of_it_is(backbone: Backbone) -> None:
    features = extractor(backbone, crops=False, image_sides=[128], grid=1)
    flat = np.full((128, 128, 3), 90, np.uint8)
    found = next(features.features([(flat, np.array([[32, 32, 96, 96]], np.float32))]))[0]
    cell, whole = found[112:432], found[432:]  # of the last map, after the 112 of the one before
    assert np.corrcoef(cell, whole)[0, 1] > 0.9


def test_what_is_shown_has_few_shapes() -> None:
    assert shown_size((480, 640), 320, 32) == (320, 448)
    assert shown_size((640, 480), 320, 32) == (448, 320)
    assert shown_size((10_000, 10), 320, 32) == (4096, 320)
    # Patches of 14 pixels: the step is 70. 4096 holds 58 of them.
    assert shown_size((480, 640), 350, 14) == (350, 490)
    assert shown_size((10_000, 10), 350, 14) == (4060, 350)


def test_geometry_by_hand() -> None:
    found = region_geometry(np.array([[0, 10, 20, 50]], np.float32), (50, 100), np.array([5]))
    wanted = [np.log(0.16), np.log(0.5), np.log(0.2), np.log(0.8), -0.4, 0.1, 1, 0, 0, 1, np.log(8)]
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)
    assert region_geometry(BOXES[:0], (50, 100), np.zeros(0, np.int64)).shape == (0, COLUMNS)


def test_a_mirrored_view_is_the_view_of_the_mirrored_image(backbone: Backbone) -> None:
    image = image_of(0)
    turned = BOXES[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [100, 0, 100, 0]
    other = next(extractor(backbone, image_sides=[64]).features([(image[:, ::-1].copy(), turned.astype(np.float32))]))
    both = extractor(backbone, image_sides=[64], mirrored=True)
    found = next(both.features([(image, BOXES)]))
    assert found.shape == (3, both.width)
    np.testing.assert_allclose(found[:, both.width // 2 :], other, atol=2e-3)
    np.testing.assert_allclose(
        mirrored_geometry(region_geometry(BOXES, (80, 100), np.arange(3))),
        region_geometry(turned.astype(np.float32), (80, 100), np.arange(3)),
        atol=1e-6,
    )


def test_the_digest_is_of_the_weights(backbone: Backbone) -> None:
    before = network_digest(backbone)
    assert network_digest(backbone) == before
    weight = next(backbone.parameters())
    with torch.no_grad():
        weight[0, 0, 0, 0] += 1
        assert network_digest(backbone) != before
        weight[0, 0, 0, 0] -= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": 0}, "grid from 1"),
        ({"image_sides": [8]}, "image_sides"),
        ({"crops": False, "image_sides": []}, "both"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureConfig(**settings)  # type: ignore[arg-type]
