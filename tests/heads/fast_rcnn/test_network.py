"""Fast R-CNN's network: shapes, what its seed says, and that a region sees its own part of its own image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.region_head import BoxRegression
from tests.classify import tiny


def head(**more: object) -> FastRcnnConfig:
    settings = {"maps": ["stem"], "merge_width": 6, "pool_size": 2, "hidden": 5, "dropout": 0.0, **more}
    return FastRcnnConfig(**settings)  # type: ignore[arg-type]


def network(seed: int = 0, **more: object) -> FastRcnn:
    torch.manual_seed(7)
    return FastRcnn(tiny.TinyBackbone(), 3, head(**more), seed=seed).eval()


def images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 32, 48, 3), dtype=torch.uint8, generator=generator)


REGIONS = torch.tensor([[0.0, 0, 0, 20, 20], [1, 4, 4, 40, 30], [0, 8, 8, 30, 30]])


@pytest.mark.parametrize("merge_width", [6, None])
def test_shapes(merge_width: int | None) -> None:
    logits, deltas = network(merge_width=merge_width)(images(), REGIONS)
    assert logits.shape == (3, 4)
    assert deltas is not None
    assert deltas.shape == (3, 3, 4)


def test_no_regions() -> None:
    logits, deltas = network()(images(), REGIONS[:0])
    assert logits.shape == (0, 4)
    assert deltas is not None
    assert deltas.shape == (0, 3, 4)


def test_without_box_regression() -> None:
    logits, deltas = network(box_regression=BoxRegression.none)(images(), REGIONS)
    assert (logits.shape, deltas) == ((3, 4), None)


def test_a_region_is_its_own_image_s() -> None:
    both, one = network(), images()
    with torch.no_grad():
        both.head.linear.weight.mul_(100)
        before = both(one, REGIONS)[0]
        one[1] = 0
        after = both(one, REGIONS)[0]
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert not torch.allclose(after[1], before[1])


def test_new_layers_are_the_seed_s_whatever_the_global_generator_is() -> None:
    first, second, other = network(0), network(0), network(1)
    torch.manual_seed(99)
    third = FastRcnn(tiny.TinyBackbone(), 3, head(), seed=0)
    for module in ("merge", "fc1", "fc2", "head", "box_regressor"):
        for own, same, also, different in zip(
            *(getattr(one, module).parameters() for one in (first, second, third, other)), strict=True
        ):
            torch.testing.assert_close(own, same, rtol=0, atol=0)
            torch.testing.assert_close(own, also, rtol=0, atol=0)
            assert not own.any() or not torch.equal(own, different)  # biases are 0


def test_first_weights_are_as_large_as_asked_for() -> None:
    for gain in (2.0, 0.5):
        layer = network(start_gain=gain, hidden=256).fc1
        assert isinstance(layer, torch.nn.Linear)
        assert float(layer.weight.detach().var()) * layer.in_features == pytest.approx(gain, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"maps": []}, "expected one map"),
        ({"maps": ["a", "b"], "merge_width": None}, "expected one map"),
        ({"box_regression": BoxRegression.ridge}, "joint or none"),
        ({"scales": []}, "head.scales: expected sides of 32"),
        ({"hidden": 0}, "head.hidden"),
        ({"merge_width": 0}, "head.merge_width: expected 1 to"),
    ],
)
def test_settings_that_make_no_head(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        head(**settings)


def test_a_map_that_the_backbone_has_not() -> None:
    with pytest.raises(ValueError, match=r"no feature map \['stride8'\]; it has \['stem'\]"):
        FastRcnn(tiny.TinyBackbone(), 3, head(maps=["stride8"]), seed=0)
