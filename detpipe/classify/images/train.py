"""Training of an image classifier on a database of labelled images.

N: images in a batch. H, W: the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detpipe.backbone.input_spec import InputSpec
from detpipe.classify.images.database import ImagesReader
from detpipe.classify.images.network import ImageClassifier
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.images.view import Draws, draw_views, view_datum
from detpipe.classify.mixup import Mixing, draw_mixing
from detpipe.heads.region_head import TrainedHeadConfig
from detpipe.heads.softmax import softmax_loss
from detpipe.network.batch_order import plain_order
from detpipe.network.colour_jitter import jitter_colour, jitter_factor
from detpipe.network.device import autocast
from detpipe.network.train_network import RunContext, train_network
from detpipe.storage.datum import CorruptDatumError
from detpipe.structures import Image, Int64Array

TEST_BATCH = 50
"""Batch size of inference: Caffe's usual test batch."""


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """images: (N, H, W, 3) uint8 RGB. labels: (N,) int64. mixing: mixup of the batch, or None."""

    images: npt.NDArray[np.uint8]
    labels: Int64Array
    mixing: Mixing | None = None


def train_images(
    network: ImageClassifier,
    train: ImagesReader,
    val: ImagesReader | None,
    *,
    view: ViewConfig,
    head: TrainedHeadConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to `context.folder`.

    With several processes (`context.ranks`), each reads its own part of every batch.

    Raises ValueError for an empty database, Interrupted after a signal.
    """
    device, bf16, batch_size = context.device, context.bf16, context.solver.batch_size
    order = plain_order(len(train), batch_size=batch_size, seed=context.seed)
    part = context.ranks.part(batch_size)

    def make_batch(number: int) -> ImageBatch:
        generator = np.random.default_rng((context.seed, number))
        # Drawn for the whole batch, so that augmentation does not depend on the rank that reads the image.
        draws = draw_views(generator, batch_size)[part]
        batch = read_batch(train, order(number)[part], network.backbone.spec, view, draws, flip=head.flip)
        return replace(batch, mixing=draw_mixing(generator, batch_size, view.mixup, part))

    def loss(batch: ImageBatch) -> Mapping[str, Tensor]:
        images, labels = torch.from_numpy(batch.images).to(device), torch.from_numpy(batch.labels).to(device)
        mixing = batch.mixing
        with autocast(device, bf16):
            logits = network(images if mixing is None else mixing.images(images))
        smoothing = head.label_smoothing
        return {
            "loss": softmax_loss(logits, labels, smoothing)
            if mixing is None
            else mixing.loss(logits, labels, smoothing),
            "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
        }

    return train_network(
        network,
        new_modules=[network.head],
        examples=len(train),
        data=f"{len(train):,} images",
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, view, device, bf16) if val is not None and len(val) else None,
        learning=head,
        context=context,
    )


def read_batch(
    reader: ImagesReader,
    indices: Int64Array | Sequence[int],
    spec: InputSpec,
    view: ViewConfig,
    draws: Sequence[Draws] | None,
    *,
    flip: bool = False,
) -> ImageBatch:
    """The images at these indices at the network's input size, not normalised: (N, H, W, 3) uint8 RGB.

    spec: the input size, and the interpolation of resized crops. No indices give (0, H, W, 3).
    draws: the random numbers of each image's view, and with `flip` of its mirroring; None takes the centre crop without
    augmentation. Raises ValueError, which names the record, for an image smaller than its crop.
    """
    images = np.empty((len(indices), *spec.size, 3), dtype=np.uint8)
    for row, index in enumerate(indices):
        draw = draws[row] if draws is not None else None
        try:
            pixels = view_datum(reader.datum(index), reader.where(index), spec.size, view, draw, spec.interpolation)
        except CorruptDatumError:
            raise
        except ValueError as error:
            raise ValueError(f"{reader.where(index)}: {error}") from error
        images[row] = augmented(pixels, view, draw, flip=flip) if draw is not None else pixels
    return ImageBatch(images, reader.labels[np.asarray(indices, dtype=np.int64)])


def augmented(pixels: Image, view: ViewConfig, draws: Draws, *, flip: bool) -> npt.NDArray[np.uint8]:
    """Apply colour jitter if view.colour is set; with `flip`, mirror with probability 0.5. (H, W, 3) -> (H, W, 3)."""
    if view.colour:
        factors = (draws.brightness, draws.contrast, draws.saturation)
        pixels = jitter_colour(pixels, *(jitter_factor(drawn, view.colour) for drawn in factors))
    return cv2.flip(pixels, 1) if flip and draws.mirror < 0.5 else pixels  # type: ignore[return-value]


def all_logits(
    network: ImageClassifier, reader: ImagesReader, view: ViewConfig, device: torch.device, bf16: bool
) -> npt.NDArray[np.float32]:
    """The logits (N, K) of the centre crops of all images of a database. An empty database gives (0, 0).

    The network must be in evaluation mode.
    """
    found = []
    with torch.inference_mode(), autocast(device, bf16):
        for begin in range(0, len(reader), TEST_BATCH):
            indices = range(begin, min(begin + TEST_BATCH, len(reader)))
            batch = read_batch(reader, indices, network.backbone.spec, view, None)
            found.append(network(torch.from_numpy(batch.images).to(device)).float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.float32)


def validation(
    network: ImageClassifier, val: ImagesReader, view: ViewConfig, device: torch.device, bf16: bool
) -> Callable[[], dict[str, float]]:
    """A function that returns val_loss and val_accuracy of `network` on the whole database, as in Caffe's test."""

    def validate() -> dict[str, float]:
        logits = torch.from_numpy(all_logits(network, val, view, device, bf16))
        labels = torch.from_numpy(val.labels)
        return {
            "val_loss": float(softmax_loss(logits, labels)),
            "val_accuracy": float((logits.argmax(dim=1) == labels).float().mean()),
        }

    return validate
