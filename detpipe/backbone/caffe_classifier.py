"""A complete Caffe net with its own classifier and losses, trained and tested as in Caffe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from detpipe.backbone.caffe.caffemodel import read_caffemodel
from detpipe.backbone.caffe.load import build_net, load_blobs
from detpipe.backbone.caffe.net import Net
from detpipe.backbone.caffe.presets import find_prototxt
from detpipe.backbone.caffe_backbone import grey, input_shape, read_definition, triple
from detpipe.backbone.input_spec import ChannelOrder, InputSpec
from detpipe.backbone.weights import load_weights

SOFTMAX = ("Softmax", "SoftmaxWithLoss")


class CaffeClassifier(nn.Module):
    """A Caffe net that ends in a softmax. spec: the expected input. net: the net. outputs: number of classes."""

    def __init__(self, net: Net, mean: Sequence[float], scale: float, where: str) -> None:
        """mean: of B, G, R, or one for all. Raises ValueError, beginning with `where`, for a net without a softmax."""
        super().__init__()
        (name, shape), *_ = net.inputs.items()
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise ValueError(
                f"{where}: expected a net with an image input (N, 1 or 3, H, W), got {name!r} of shape {shape}"
            )
        ends = [step for step in net.steps if step.layer.type in SOFTMAX]
        if not ends:
            raise ValueError(f"{where}: expected a net that ends in one of {', '.join(SOFTMAX)}, got a net without")
        self.net, self.is_grey, self.scores = net, shape[1] == 1, ends[-1].bottoms[0]
        self.outputs = net.shapes[self.scores][1]
        self.spec = InputSpec((shape[2], shape[3]), triple(mean), (1 / scale, 1 / scale, 1 / scale), ChannelOrder.BGR)

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss for images (N, H, W, 3) uint8 RGB and labels (N,) int64 in 0..outputs - 1: a scalar.

        It is the weighted sum of the net's own losses, including auxiliary ones. If the prototxt has no loss (a deploy
        file), it is the mean cross entropy of the softmax's input.
        """
        x = self.spec.to_input(images)
        x = grey(x) if self.is_grey else x
        if len(self.net.inputs) > 1 and any(step.layer.type.endswith("Loss") for step in self.net.steps):
            return self.net.loss(self.net(x, labels))
        return F.cross_entropy(self.net.named_blobs([self.scores], x)[self.scores].flatten(1).float(), labels)


def build_classifier(
    prototxt: str, weights: Path | None, mean: Sequence[float], scale: float, size: int | None, *, train: bool
) -> CaffeClassifier:
    """Build the net of a prototxt (or preset) for images of size x size; None: the prototxt's size.

    train: use the layers of the phase TRAIN, in training mode. Without weights the net is initialised by its fillers
    from torch's global generator. Raises FileNotFoundError; ValueError as `load_caffe`.
    """
    path = find_prototxt(prototxt)
    definition = read_definition(path, train=train)
    shape = input_shape(definition, size, str(path))
    generator = torch.default_generator
    net = build_net(definition, train=train, input_shape=shape, generator=generator, where=str(path))
    if weights is not None and weights.suffix == ".caffemodel":
        load_blobs(net, read_caffemodel(weights), str(weights))
    elif weights is not None:
        load_weights(net, weights)
    return CaffeClassifier(net, mean, scale, str(path)).train(train)
