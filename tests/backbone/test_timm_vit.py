"""timm's vision transformers against timm itself, with random weights and few narrow layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from detpipe.backbone.backbone import meta_copy
from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.backbone.timm_vit import TimmVit, is_vit, load_vit_weights, options

timm = pytest.importorskip("timm")

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 2}

PATCH = {
    "vit_tiny_patch16_224": 16,
    "deit_tiny_distilled_patch16_224": 16,
    "vit_small_patch14_dinov2": 14,
    "vit_small_patch14_reg4_dinov2": 14,
    "vit_small_patch16_dinov3": 16,
    "vit_base_patch32_clip_224": 32,
    "vit_base_patch16_siglip_224": 16,
    "eva02_tiny_patch14_224": 14,
}


def plain(name: str, **arguments: Any) -> nn.Module:
    """timm's network as its users create it, with random numbers also where timm starts from 0."""
    network: nn.Module = timm.create_model(name, **SMALL, **arguments).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(torch.randn(tensor.shape) * 0.1)
    return network


def adapted(name: str, reference: nn.Module) -> TimmVit:
    """The backbone with the weights of a network of timm."""
    network = timm.create_model(name, **SMALL, **options(name)).eval()
    network.load_state_dict(reference.state_dict())
    return TimmVit(network).eval()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", PATCH)
def test_tokens_equal_those_of_timm(name: str) -> None:
    reference: Any = plain(name)
    backbone, key = adapted(name, reference), f"stride{PATCH[name]}"
    assert {k: (m.stride, m.channels) for k, m in backbone.feature_maps.items()} == {key: (PATCH[name], 48)}
    x = torch.randn(1, 3, *backbone.spec.size)
    with torch.inference_mode():
        _, (tokens,) = reference.forward_intermediates(x, indices=1, norm=True)
        torch.testing.assert_close(backbone.forward_maps(x, [key])[key], tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PATCH)
def test_any_size_is_padded_to_whole_patches(name: str) -> None:
    backbone, patch = adapted(name, plain(name)), PATCH[name]
    key, x = f"stride{patch}", torch.randn(2, 3, 3 * patch - 5, 2 * patch + 1)
    with torch.inference_mode():
        found = backbone.forward_maps(x, [key])[key]
        padded = F.pad(x, (0, patch - 1, 0, 5))
        assert found.shape == (2, 48, 3, 3)
        torch.testing.assert_close(found, backbone.forward_maps(padded, [key])[key])
        torch.testing.assert_close(backbone(x), backbone(padded))
        assert backbone(x).shape == (2, backbone.feature_width)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "vit_base_patch32_clip_224"])
def test_crops_give_the_class_token(name: str) -> None:
    reference: Any = plain(name)
    backbone = adapted(name, reference)
    x = torch.randn(2, 3, *backbone.spec.size)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(x), reference.forward_features(x)[:, 0])


def test_siglip_gives_its_attention_pooling() -> None:
    reference: Any = plain("vit_base_patch16_siglip_224")
    backbone = adapted("vit_base_patch16_siglip_224", reference)
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(x), reference(x))


def test_position_embeddings_are_interpolated() -> None:
    """Of an image of one colour, only positions tell patches apart: a larger image has the same course of them."""
    backbone = adapted("vit_tiny_patch16_224", plain("vit_tiny_patch16_224"))
    network: Any = backbone.network
    with torch.no_grad():
        ramp = torch.linspace(-1, 1, 14).repeat(14, 1).reshape(1, 196, 1)
        network.pos_embed[:, 1:] = ramp * torch.randn(48)
    network.blocks = network.norm = nn.Identity()
    network.blocks = nn.ModuleList([nn.Identity()])
    with torch.inference_mode():
        small, large = (
            backbone.forward_maps(torch.zeros(1, 3, side, side), ["stride16"])["stride16"] for side in (224, 448)
        )
        means = F.avg_pool2d(large, 2)
    torch.testing.assert_close(means[..., 2:-2], small[..., 2:-2], atol=0.02, rtol=0.02)


def test_no_images_and_no_maps() -> None:
    backbone = adapted("vit_small_patch14_dinov2", plain("vit_small_patch14_dinov2"))
    assert backbone(torch.zeros(0, 3, 28, 28)).shape == (0, 48)
    assert backbone.forward_maps(torch.zeros(0, 3, 28, 28), ["stride14"])["stride14"].shape == (0, 48, 2, 2)
    assert backbone.forward_maps(torch.zeros(1, 3, 28, 28), []) == {}
    with pytest.raises(ValueError, match="no feature map"):
        backbone.forward_maps(torch.zeros(1, 3, 28, 28), ["stride16"])


def test_the_input_is_that_of_the_named_weights() -> None:
    def spec(name: str) -> tuple[tuple[int, int], list[float]]:
        found = TimmVit(timm.create_model(name, **SMALL, **options(name))).spec
        return found.size, [round(mean / 255, 4) for mean in found.mean]

    assert spec("vit_small_patch14_dinov2.lvd142m") == ((518, 518), [0.485, 0.456, 0.406])
    assert spec("vit_base_patch16_clip_224.openai") == ((224, 224), [0.4815, 0.4578, 0.4082])
    assert spec("vit_base_patch16_siglip_224.v2_webli") == ((224, 224), [0.5, 0.5, 0.5])
    # 27 whole patches of the 384 pixels.
    assert spec("vit_so400m_patch14_siglip_384.webli")[0] == (378, 378)


def test_which_networks_are_meant() -> None:
    assert all(is_vit(name) for name in PATCH)
    assert is_vit("vit_base_patch16_clip_224.openai")
    assert not any(is_vit(name) for name in ("resnet18", "vit_tiny_r_s16_p8_224", "swin_tiny_patch4_window7_224"))


def test_create_backbone(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    reference = timm.create_model(name)
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    backbone = create_backbone(BackboneConfig(name=f"timm/{name}", weights=str(tmp_path / "weights.safetensors")))
    assert isinstance(backbone, TimmVit)
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.classify(x), reference.eval()(x))
    assert [stage for stage, _ in backbone.stages][:2] == ["stage0", "stage1"]
    meta_copy(backbone)(torch.empty(2, 3, 100, 130, device="meta"))


def test_networks_without_an_imagenet_classifier_have_none(tmp_path: Path) -> None:
    clip = timm.create_model("vit_base_patch16_clip_224.openai", **SMALL, **options(""))
    assert clip.num_classes == 512
    assert TimmVit(clip).classifier is None
    assert TimmVit(timm.create_model("vit_small_patch14_dinov2", **SMALL, **options(""))).classifier is None


def loaded(name: str, state: dict[str, Tensor], folder: Path) -> nn.Module:
    path = folder / "weights.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    network: nn.Module = timm.create_model(name, **SMALL, **options(name)).eval()
    load_vit_weights(network, path)
    return network


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for key, tensor in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[key], tensor)


def test_original_file_of_dinov2(tmp_path: Path) -> None:
    name = "vit_small_patch14_dinov2"
    reference = plain(name)
    original = {**reference.state_dict(), "mask_token": torch.zeros(1, 48)}
    assert_same(loaded(name, original, tmp_path), reference)


def test_file_of_open_clip(tmp_path: Path) -> None:
    name = "vit_base_patch16_siglip_224"
    reference = plain(name)
    state = {f"visual.trunk.{key}": tensor for key, tensor in reference.state_dict().items()}
    assert_same(loaded(name, {**state, "logit_scale": torch.ones(1)}, tmp_path), reference)


def test_file_of_openai_clip(tmp_path: Path) -> None:
    """CLIP's own names: fused queries, keys and values, and a projection without bias."""
    name = "vit_base_patch32_clip_224"
    reference = plain(name, num_classes=24)
    own = reference.state_dict()
    own["head.bias"] = torch.zeros(24)
    reference.load_state_dict(own)
    clip = {
        "visual.class_embedding": own["cls_token"][0, 0],
        "visual.positional_embedding": own["pos_embed"][0],
        "visual.conv1.weight": own["patch_embed.proj.weight"],
        "visual.proj": own["head.weight"].T,
    }
    renamed = {
        "norm_pre.": "visual.ln_pre.",
        "norm.": "visual.ln_post.",
        "blocks.": "visual.transformer.resblocks.",
    }
    parts = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.weight": "attn.in_proj_weight",
        "attn.qkv.bias": "attn.in_proj_bias",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for key, tensor in own.items():
        start = next((one for one in renamed if key.startswith(one)), None)
        if start is not None:
            new = renamed[start] + key.removeprefix(start)
            for part, theirs in parts.items():
                new = new.replace(part, theirs)
            clip[new] = tensor
    path = tmp_path / "weights.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in clip.items()}, path)
    network = timm.create_model(name, num_classes=24, **SMALL, **options(name)).eval()
    assert load_vit_weights(network, path)
    assert_same(network, reference)


def test_a_file_of_another_image_size(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    network: Any = loaded(name, plain(name, img_size=96).state_dict(), tmp_path)
    assert network.pos_embed.shape == (1, 1 + 14**2, 48)


def test_a_classifier_is_not_needed(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    state = {key: tensor for key, tensor in plain(name).state_dict().items() if not key.startswith("head.")}
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    network = timm.create_model(name, **SMALL, **options(name))
    assert not load_vit_weights(network, path)


@pytest.mark.parametrize(
    ("name", "arguments", "remedy"),
    [
        ("vit_tiny_patch16_224", {"embed_dim": 24}, r"\(24,\) in the file.*set backbone\.name"),
        ("vit_tiny_patch16_224", {"depth": 1}, r"blocks\.1\..*set backbone\.name"),
        ("vit_small_patch16_dinov3", {}, "set backbone.name|VisionTransformer"),
        ("resnet18", {}, "VisionTransformer|timm cannot convert"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, name: str, arguments: dict[str, int], remedy: str
) -> None:
    small = {} if name == "resnet18" else {**SMALL, **arguments}
    state = timm.create_model(name, **small).state_dict()
    with pytest.raises(ValueError, match=remedy) as error:
        loaded("vit_tiny_patch16_224", state, tmp_path)
    assert "weights.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "state",
    [
        {"pos_embed": torch.zeros(1, 7, 48)},
        {"encoder": torch.zeros(2)},
        {"visual.class_embedding": torch.zeros(2)},
        {"patch_embed.proj.weight": torch.zeros(3)},
        {"visual.trunk.pos_embed": torch.zeros(())},
        {"mask_token": torch.zeros(2), "pos_embed": torch.zeros(2)},
    ],
)
def test_hostile_tensors_are_one_error(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        loaded("vit_tiny_patch16_224", state, tmp_path)
