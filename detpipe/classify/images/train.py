"""Training a plain image classifier on a database of labelled images.

N: images of a batch. H, W: the network's input.
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
"""Images of a batch where nothing is learnt: Caffe's usual test batch."""


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """images: (N, H, W, 3) uint8 RGB. labels: (N,) int64. mixing: of images and labels, where they are to be mixed."""

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
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to the session's folder.

    Of several processes (session.ranks) each reads its own part of every batch.

    Raises ValueError for an empty database, Interrupted after a signal.
    """
    device, bf16, batch_size = context.device, context.bf16, context.solver.batch_size
    order = plain_order(len(train), batch_size=batch_size, seed=context.seed)
    part = context.ranks.part(batch_size)

    def make_batch(number: int) -> ImageBatch:
        generator = np.random.default_rng((context.seed, number))
        # Drawn for the whole batch, so that an image looks the same whichever rank reads it.
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
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, view, device, bf16) if val is not None and len(val) else None,
        learning=head,
        context=context,
    )


def read_batch(
    reader: ImagesReader,
    places: Int64Array | Sequence[int],
    spec: InputSpec,
    view: ViewConfig,
    draws: Sequence[Draws] | None,
    *,
    flip: bool = False,
) -> ImageBatch:
    """The images at these places at the size of the network's input, not normalised: (N, H, W, 3) uint8 RGB.

    spec: its size, and the interpolation where a cut is resized. No places give (0, H, W, 3).
    draws: for each image what is random in its view, and with `flip` whether it is mirrored; None sees the middle as
    it is stored. Raises ValueError naming the record that is smaller than its crop.
    """
    images = np.empty((len(places), *spec.size, 3), dtype=np.uint8)
    for row, place in enumerate(places):
        of_one = draws[row] if draws is not None else None
        try:
            seen = view_datum(reader.datum(place), reader.where(place), spec.size, view, of_one, spec.interpolation)
        except CorruptDatumError:
            raise
        except ValueError as error:
            raise ValueError(f"{reader.where(place)}: {error}") from error
        images[row] = augmented(seen, view, of_one, flip=flip) if of_one is not None else seen
    return ImageBatch(images, reader.labels[np.asarray(places, dtype=np.int64)])


def augmented(seen: Image, view: ViewConfig, draws: Draws, *, flip: bool) -> npt.NDArray[np.uint8]:
    """The input (H, W, 3) in other colours where the view says so, and with `flip` half of the time mirrored."""
    if view.colour:
        factors = (draws.brightness, draws.contrast, draws.saturation)
        seen = jitter_colour(seen, *(jitter_factor(drawn, view.colour) for drawn in factors))
    return cv2.flip(seen, 1) if flip and draws.mirror < 0.5 else seen  # type: ignore[return-value]


def all_logits(
    network: ImageClassifier, reader: ImagesReader, view: ViewConfig, device: torch.device, bf16: bool
) -> npt.NDArray[np.float32]:
    """The logits (N, K) of all images of a database, the middle of each seen; the network in evaluation mode.

    An empty database gives (0, 0).
    """
    found = []
    with torch.inference_mode(), autocast(device, bf16):
        for begin in range(0, len(reader), TEST_BATCH):
            places = range(begin, min(begin + TEST_BATCH, len(reader)))
            batch = read_batch(reader, places, network.backbone.spec, view, None)
            found.append(network(torch.from_numpy(batch.images).to(device)).float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.float32)


def validation(
    network: ImageClassifier, val: ImagesReader, view: ViewConfig, device: torch.device, bf16: bool
) -> Callable[[], dict[str, float]]:
    """A function that gives val_loss and val_accuracy of `network` over the whole database, as Caffe's test does."""

    def validate() -> dict[str, float]:
        logits = torch.from_numpy(all_logits(network, val, view, device, bf16))
        labels = torch.from_numpy(val.labels)
        return {
            "val_loss": float(softmax_loss(logits, labels)),
            "val_accuracy": float((logits.argmax(dim=1) == labels).float().mean()),
        }

    return validate
