"""Vision transformers of timm (extra [timm]) as backbones: ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP, EVA.

An image is cut into patches of P x P pixels, and each patch becomes a token (Dosovitskiy et al. 2021). Patch tokens are
the feature map of stride P. Images may have any size: sides are padded to multiples of P, and position embeddings are
interpolated (DINOv3 and EVA-02 rotate queries and keys by position instead).
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detpipe.backbone.backbone import FeatureMap
from detpipe.backbone.timm_models import TimmBackbone, check_name
from detpipe.backbone.weights import State, load_weights, log_report

MODULES = ("vision_transformer", "eva", "deit")
"""The files of timm whose networks take images of any size (`dynamic_img_size`)."""

CLASSIFIERS = ("head.", "head_dist.")
"""Prefixes of the last layers, which no feature needs: classifiers, and CLIP's projection."""


class TimmVit(TimmBackbone):
    """A vision transformer without its classifier.

    `forward` gives the class token, or what the network was pretrained with: the mean of the tokens, or SigLIP's
    attention pooling. The only map, `strideP`, has the patch tokens after the last norm, without class and register
    tokens.
    """

    def __init__(self, network: nn.Module) -> None:
        """network: from `build(name)`, perhaps with other weights. Its classifier is removed."""
        super().__init__(network)
        net: Any = network
        patch, (rows, columns) = net.patch_embed.patch_size[0], net.patch_embed.grid_size
        # 384 is not a multiple of 14: such networks are pretrained on the 378 that whole patches cover.
        self.spec = replace(self.spec, size=(rows * patch, columns * patch))
        self.feature_maps = {f"stride{patch}": FeatureMap(patch, net.embed_dim)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # timm's networks cannot divide no numbers into tokens.
        return super().forward(x) if len(x) else x.new_zeros((0, self.feature_width))

    def forward_maps(self, x: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """See `Backbone.forward_maps`. Map heights are ceil(H / stride)."""
        self.check_map_names(names)
        if not names:
            return {}
        if not len(x):
            return {name: _no_cells(x, self.feature_maps[name]) for name in names}
        net: Any = self.network
        (tokens,) = net.forward_intermediates(x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)
        return dict.fromkeys(names, tokens)


def _no_cells(x: torch.Tensor, one: FeatureMap) -> torch.Tensor:
    height, width = (-(-side // one.stride) for side in x.shape[2:])
    return x.new_zeros((0, one.channels, height, width))


def is_vit(name: str) -> bool:
    """Whether a name of timm is one of these networks. timm must be installed."""
    from timm.models import is_model_in_modules

    return bool(is_model_in_modules(name.partition(".")[0], MODULES))


def build(name: str, download: bool = False) -> nn.Module:
    """Create timm's network for images of any size, with random weights, or with weights that timm downloads.

    Raises as `check_name`.
    """
    check_name(name)
    import timm

    network: nn.Module = timm.create_model(name, pretrained=download, **options(name))
    return network


def options(name: str) -> dict[str, Any]:
    """timm's arguments for images of any size. DINOv3 gives its class token, with which it was trained."""
    pooling = {"global_pool": "token"} if "dinov3" in name else {}
    return {"dynamic_img_size": True, "dynamic_img_pad": True, **pooling}


def load_vit_weights(network: nn.Module, path: Path, *, log: bool = True) -> bool:
    """Load a file with timm's names, or an original file of DINOv2, DINOv3, CLIP or OpenCLIP, which timm converts.

    Position embeddings of another image size are interpolated. log: log what the file has and lacks. Returns whether
    the file has the classifier.

    Raises FileNotFoundError; ValueError for an unreadable file, and for one that lacks any tensor but the classifier's,
    because features of a network with some random weights are useless.
    """
    name = str(getattr(network, "pretrained_cfg", {}).get("architecture", type(network).__name__))

    def convert(state: State) -> State:
        from timm.models import eva, vision_transformer

        filtered = eva if isinstance(network, eva.Eva) else vision_transformer
        try:
            # timm prints each bias that it leaves out.
            with redirect_stdout(StringIO()):
                converted: State = filtered.checkpoint_filter_fn(dict(state), network)
        except Exception as error:  # tensors of any shape may be in the file
            raise ValueError(
                f"{path}: expected the weights of timm/{name}, got tensors that timm cannot convert "
                f"({type(error).__name__}: {str(error)[:200]}); give the file of this network"
            ) from error
        return converted

    report = load_weights(network, path, log=False, convert=convert)
    lacking = [one for one in (*report.wrong_shape, *report.missing) if not one.startswith(CLASSIFIERS)]
    if lacking:
        raise ValueError(
            f"{path}: expected the weights of timm/{name}, got a file in which {len(lacking)} of its tensors are "
            f"missing or have another shape ({lacking[0]}); give the file of this network, or set backbone.name to the "
            "network of the file"
        )
    if log:
        log_report(report)
    return not any(one.startswith(CLASSIFIERS) for one in report.not_loaded)
