"""Creating a backbone from its settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from detpipe.backbone import caffe_backbone, timm_models, timm_vit, torchvision_models
from detpipe.backbone.backbone import Backbone
from detpipe.backbone.caffe.caffemodel import read_caffemodel
from detpipe.backbone.settings import CAFFE, IMAGENET, NETWORKS, NONE, BackboneConfig
from detpipe.backbone.weights import load_weights, read_state


def check_weights(config: BackboneConfig) -> None:
    """Raise an error that names the setting if the weights can't be loaded. Call it before any expensive work.

    The file is read completely; whether its tensors fit the network is checked by `create_backbone`. Raises
    FileNotFoundError for a missing file, else ValueError.
    """
    _check_named(config)
    if config.weights in (IMAGENET, NONE):
        return
    path = Path(config.weights)
    try:
        if config.name == CAFFE and path.suffix not in caffe_backbone.PLAIN_SUFFIXES:
            read_caffemodel(path)
        else:
            read_state(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"backbone.weights: {error}") from error


def _check_named(config: BackboneConfig) -> None:
    """Raise if the network does not exist, its weights would be downloaded without permission, or have no file."""
    library, _, name = config.name.partition("/")
    if library == "torchvision":
        torchvision_models.check_name(name)
    elif library == "timm":
        timm_models.check_name(name)
    path = Path(config.weights)
    if config.weights == IMAGENET and config.name not in NETWORKS and not config.download:
        raise ValueError(
            f"{config.name}: its pretrained weights are a download, which needs backbone.download=true; set that, or "
            "backbone.weights=FILE for a local file, or backbone.weights=none for random ones"
        )
    if config.weights in (IMAGENET, NONE) or path.exists():
        return
    raise FileNotFoundError(
        f"backbone.weights: expected imagenet, none or the path of a file, got {config.weights}, which does not exist"
    )


def create_backbone(config: BackboneConfig, *, log: bool = True) -> Backbone:
    """Create a backbone with its weights, in evaluation mode. Its spec has the configured input size.

    With weights=none, weights are drawn from torch's global generator, which the caller seeds. `classifier` is None
    unless the weights include an ImageNet classifier. log: log what a weight file has and lacks.

    Raises ImportError if a package is missing, FileNotFoundError or ValueError if the weights can't be loaded, and
    ValueError for an unknown name.
    """
    _check_named(config)
    if config.name == CAFFE:
        backbone = _caffe(config, log)
    else:
        backbone = _own(config, log) if config.name in NETWORKS else _from_library(config, log)
    backbone.has_random_weights = config.weights == NONE
    if config.name == CAFFE:
        return backbone.eval()
    if config.input_size is not None:
        backbone.spec = replace(backbone.spec, size=(config.input_size, config.input_size))
    return backbone.eval()


def map_strides(config: BackboneConfig, names: Sequence[str]) -> list[int]:
    """The strides of feature maps; no weights are loaded. Raises ValueError for a map that the network lacks."""
    backbone = create_from_seed(replace(config, weights=NONE, download=False), 0)
    backbone.check_map_names(names)
    return [backbone.feature_maps[name].stride for name in names]


def create_from_seed(config: BackboneConfig, seed: int, *, pretrained: bool = True, log: bool = True) -> Backbone:
    """As `create_backbone`, with random weights drawn from `seed`. The state of torch's global generator is restored.

    pretrained: false skips loading the configured weights, because others will be loaded.
    """
    with seeded(seed):
        return create_backbone(config if pretrained else replace(config, weights=NONE, download=False), log=log)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which torch's global generator starts from `seed`. Afterwards its state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def written_out(config: BackboneConfig) -> BackboneConfig:
    """For a Caffe net: the settings with mean and scale as numbers instead of files. Others are returned unchanged.

    So a saved classifier does not need these files. Raises ValueError if the mean is nowhere stated.
    """
    if config.name != CAFFE:
        return config
    assert config.prototxt is not None
    mean, scale = caffe_backbone.preprocessing(config.prototxt, config.mean, config.mean_file, config.scale)
    return replace(config, mean=mean, mean_file=None, scale=scale)


def _caffe(config: BackboneConfig, log: bool) -> Backbone:
    """A Caffe net must be built for the input size, because the shapes of its InnerProduct weights depend on it."""
    plain = written_out(config)
    assert plain.prototxt is not None
    assert plain.scale is not None
    weights = None if plain.weights == NONE else Path(plain.weights)
    return caffe_backbone.build(plain.prototxt, weights, plain.mean, plain.scale, plain.input_size, log=log)


def _own(config: BackboneConfig, log: bool) -> Backbone:
    backbone: Backbone = NETWORKS.load(config.name)()
    if config.weights == IMAGENET:
        backbone.load_imagenet_weights()
    elif not _load_file(backbone, config.weights, log):
        backbone.classifier = None
    return backbone


def _from_library(config: BackboneConfig, log: bool) -> Backbone:
    library, _, name = config.name.partition("/")
    if library == "timm" and timm_vit.is_vit(name):
        return _vit(name, config, log)
    build = torchvision_models.build if library == "torchvision" else timm_models.build
    network = build(name, config.download)
    # Load before wrapping, because the file has the library's names.
    has_classifier = config.weights == IMAGENET or _load_file(network, config.weights, log)
    if library == "torchvision":
        backbone: Backbone = torchvision_models.TorchvisionBackbone(name, network)
    else:
        backbone = timm_models.TimmBackbone(network)
    if not has_classifier:
        backbone.classifier = None
    return backbone


def _vit(name: str, config: BackboneConfig, log: bool) -> Backbone:
    network = timm_vit.build(name, config.download)
    has_classifier = config.weights == IMAGENET
    if config.weights not in (IMAGENET, NONE):
        has_classifier = timm_vit.load_vit_weights(network, Path(config.weights), log=log)
    backbone = timm_vit.TimmVit(network)
    if not has_classifier:
        backbone.classifier = None
    return backbone


def _load_file(network: nn.Module, weights: str, log: bool) -> bool:
    """Load the file, unless it is `none`. Returns whether it has weights for the classifier, the last linear layer."""
    if weights == NONE:
        return False
    not_loaded = load_weights(network, Path(weights), log=log).not_loaded
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    return bool(linear) and not any(name.startswith(f"{linear[-1]}.") for name in not_loaded)
