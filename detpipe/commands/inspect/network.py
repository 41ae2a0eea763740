"""The network that `inspect activations` and `inspect time` measure, with images and labels.

N: images, H, W: the input's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.caffe_classifier import build_classifier
from detpipe.backbone.create import check_weights, create_backbone, written_out
from detpipe.backbone.depthwise_conv import use_fast_backward
from detpipe.backbone.input_spec import InputSpec
from detpipe.backbone.settings import CAFFE, NONE, BackboneConfig
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError
from detpipe.classify.crops.network import RcnnNetwork
from detpipe.classify.images.network import ImageClassifier
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.images.view import place_cut, take_cut
from detpipe.classify.kinds import kind_in, load_classifier
from detpipe.commands.inspect.settings import NetworkCommand
from detpipe.datasets.folder_scan import image_files
from detpipe.datasets.image_file import read_image
from detpipe.heads.softmax import SoftmaxHead, softmax_loss
from detpipe.network.device import resolve_device
from detpipe.network.network_folder import WEIGHTS
from detpipe.structures import Image


@dataclass(frozen=True, eq=False)
class StudiedNetwork:
    """A classifier with its loss.

    title: description for people. network: the module whose layers are measured. spec: its input. outputs: number of
    labels, 0..outputs - 1. loss: from images (N, H, W, 3) uint8 RGB and labels (N,) to a scalar.
    """

    title: str
    network: nn.Module
    spec: InputSpec
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]


def studied_network(config: NetworkCommand) -> StudiedNetwork:
    """Return the network of the settings, on its device, with the memory format and backward pass of training.

    Raises as `create_backbone`, and FileNotFoundError or ClassifierError if the run folder has no suitable classifier.
    """
    device = resolve_device(config.device)
    if config.backbone is None:
        studied = _trained(config.folder.classifier, config.run_dir)
    else:
        # weights=none uses torch's global generator, so it is seeded here and restored afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            studied = _caffe(config) if config.backbone.name == CAFFE else _backbone(config)
    use_fast_backward(studied.network)
    studied.network.to(device).to(memory_format=torch.channels_last)
    studied.network.train(config.is_training)
    return studied


def images_and_labels(config: NetworkCommand, studied: StudiedNetwork) -> tuple[Tensor, Tensor, str]:
    """Return images (N, H, W, 3) uint8 and labels (N,) int64 on the device, and a description of the images.

    An image file is cropped in the middle and resized to the network's input. Raises FileNotFoundError or
    BrokenImageError for an image, ValueError for a label that the network does not have.
    """
    generator = np.random.default_rng(config.seed)
    size = studied.spec.size
    if config.image is None:
        images, source = generator.integers(0, 256, (config.batch, *size, 3), dtype=np.uint8), "noise"
    else:
        paths = _image_files(Path(config.image))[: config.batch]
        images = np.stack([middle_square(read_image(path), studied.spec) for path in paths])
        source = f"{config.image}" + (f", {len(paths)} images" if len(paths) > 1 else "")
    if config.label is not None and not 0 <= config.label < studied.outputs:
        raise ValueError(f"label: expected one of 0 to {studied.outputs - 1}, got {config.label}")
    drawn = generator.integers(0, studied.outputs, len(images))
    labels = drawn if config.label is None else np.full_like(drawn, config.label)
    device = resolve_device(config.device)
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device), source


def middle_square(image: Image, spec: InputSpec) -> Image:
    """Crop the middle of an image (H, W, 3) to the aspect ratio of the input, and resize it to the input."""
    cut = place_cut(image.shape[:2], spec.size, ViewConfig(share=1.0), None)
    return take_cut(image, cut, spec.size, spec.interpolation)


def first_image(images: Tensor) -> Image:
    """Return the first of the images (N, H, W, 3) as an array."""
    return images[0].cpu().numpy()


def _image_files(path: Path) -> list[Path]:
    """Return the file, or the image files in a folder, by name. Raises FileNotFoundError for a folder without."""
    if not path.is_dir():
        return [path]
    files = image_files(path)
    if not files:
        raise FileNotFoundError(f"image: expected an image or a folder of images, got {path}, which has none")
    return files


def _trained(folder: Path, run_dir: str) -> StudiedNetwork:
    """Return the classifier of a run, of whole images or of crops. The loss of crops is only the class loss."""
    if not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(
            f"{run_dir}: expected a run folder with a trained classifier; give run_dir=DIR, or a network as "
            "backbone=efficientnet_lite0 or backbone=caffe"
        )
    network, spec = load_classifier(folder)
    title = f"{run_dir}, {kind_in(folder).description}, {spec.backbone.name}"
    match network:
        case ImageClassifier():
            return _studied(title, network, network.backbone, len(spec.classes))
        case RcnnNetwork():
            regions = network
            return StudiedNetwork(
                title,
                regions,
                regions.backbone.spec,
                len(spec.classes) + 1,
                lambda images, labels: softmax_loss(regions(images)[0], labels),
            )
    raise ClassifierError(
        f"{run_dir}: expected a classifier of crops or of whole images, got {kind_in(folder).description}, which runs "
        f"on an image with its regions; inspect its backbone: backbone.weights={folder / WEIGHTS}"
    )


def _backbone(config: NetworkCommand) -> StudiedNetwork:
    """Return a backbone with the classifier of its weights, or with a new head."""
    assert config.backbone is not None
    check_weights(config.backbone)
    backbone = create_backbone(config.backbone)
    head = backbone.classifier
    if head is None:
        generator = torch.Generator().manual_seed(config.seed)
        head = SoftmaxHead(backbone.feature_width, config.classes, generator=generator)
    network = ImageClassifier(backbone, head, dropout=0.0)
    return _studied(_title(config.backbone), network, backbone, network.n_outputs())


def _studied(title: str, network: nn.Module, backbone: Backbone, outputs: int) -> StudiedNetwork:
    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return softmax_loss(network(images), labels)

    return StudiedNetwork(title, network, backbone.spec, outputs, loss)


def _caffe(config: NetworkCommand) -> StudiedNetwork:
    """Return a complete Caffe net, with its last layers, losses and layer names."""
    assert config.backbone is not None
    check_weights(config.backbone)
    plain = written_out(config.backbone)
    assert plain.prototxt is not None
    assert plain.scale is not None
    weights = None if plain.weights == NONE else Path(plain.weights)
    classifier = build_classifier(
        plain.prototxt, weights, plain.mean, plain.scale, plain.input_size, train=config.is_training
    )
    title = _title(config.backbone)
    return StudiedNetwork(title, classifier.net.layers, classifier.spec, classifier.outputs, classifier.loss)


def _title(config: BackboneConfig) -> str:
    name = f"{config.name} {config.prototxt}" if config.prototxt is not None else config.name
    return f"{name}, random weights" if config.weights == NONE else f"{name}, weights {config.weights}"
