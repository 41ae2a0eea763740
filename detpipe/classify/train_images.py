"""Training a plain image classifier on a database of labelled images.

N: images of a batch. H, W: the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detpipe.classify.batch_order import plain_order
from detpipe.classify.classifier import HeadConfig
from detpipe.classify.device import autocast
from detpipe.classify.image_classifier import ImageClassifier
from detpipe.classify.image_db import ImagesReader
from detpipe.classify.train_network import train_network
from detpipe.classify.view import ViewConfig, cut_view
from detpipe.heads.softmax import softmax_loss
from detpipe.solver.solver_config import SolverConfig
from detpipe.structures import Int64Array

TEST_BATCH = 50
"""Images of a batch where nothing is learnt: Caffe's usual test batch."""


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """images: (N, H, W, 3) uint8 RGB. labels: (N,) int64."""

    images: npt.NDArray[np.uint8]
    labels: Int64Array


def train_images(
    network: ImageClassifier,
    train: ImagesReader,
    val: ImagesReader | None,
    *,
    view: ViewConfig,
    head: HeadConfig,
    solver: SolverConfig,
    folder: Path,
    key: str,
    seed: int,
    device: torch.device,
    bf16: bool,
) -> dict[str, float]:
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to `folder`.

    Raises ValueError for an empty database, Interrupted after a signal.
    """
    order = plain_order(len(train), batch_size=solver.batch_size, seed=seed)

    def make_batch(number: int) -> ImageBatch:
        generator = np.random.default_rng((seed, number))
        return read_batch(train, order(number), network.input_size, view, generator, flip=head.flip)

    def loss(batch: ImageBatch) -> Mapping[str, Tensor]:
        with autocast(device, bf16):
            logits = network(torch.from_numpy(batch.images).to(device))
        labels = torch.from_numpy(batch.labels).to(device)
        return {
            "loss": softmax_loss(logits, labels, head.label_smoothing),
            "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
        }

    return train_network(
        network,
        new_modules=[network.head],
        examples=len(train),
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, view, device, bf16) if val is not None and len(val) else None,
        head=head,
        solver=solver,
        folder=folder,
        key=key,
        seed=seed,
        device=device,
    )


def read_batch(
    reader: ImagesReader,
    places: Int64Array | Sequence[int],
    size: tuple[int, int],
    view: ViewConfig,
    generator: np.random.Generator | None,
    *,
    flip: bool = False,
) -> ImageBatch:
    """The images at these places as the network sees them: (N, *size, 3); no places give (0, *size, 3).

    generator: draws the places of the crops, and which half of the images is mirrored; None does neither.
    Raises ValueError naming the record that is smaller than its crop.
    """
    images = np.empty((len(places), *size, 3), dtype=np.uint8)
    for row, place in enumerate(places):
        try:
            cut = cut_view(reader.image(place), size, view.share, generator if view.random_crop else None)
        except ValueError as error:
            key = reader.key(place).decode(errors="replace")
            raise ValueError(f"{reader.path}, record {key}: {error}") from error
        images[row] = cut[:, ::-1] if generator is not None and flip and generator.random() < 0.5 else cut
    return ImageBatch(images, reader.labels[np.asarray(places, dtype=np.int64)])


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
            batch = read_batch(reader, places, network.input_size, view, None)
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
