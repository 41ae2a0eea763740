"""A trained classifier of whole images. It takes photos and returns the probability of each class."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from detpipe.arguments import checked
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.images.database import Resize
from detpipe.classify.images.network import ImageClassifier, ImageClassifierSpec
from detpipe.classify.images.view import view_photo
from detpipe.classify.kinds import kind_in, load_classifier
from detpipe.datasets.image_file import AnyImage, as_image, read_grey
from detpipe.network.device import resolve_device
from detpipe.network.settings import Device
from detpipe.runs.run_folder import RunFolder
from detpipe.structures import MAX_PIXELS, Float32Array, ReadOptions

BATCH = 32
"""Photos in one forward pass."""


class Guess(NamedTuple):
    """A class and its probability."""

    name: str
    score: float


@dataclass(frozen=True, eq=False)
class Classification:
    """The classes of one photo. probabilities: (K,) float32, their sum is 1. classes: K names in label order."""

    probabilities: Float32Array
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The most probable class."""
        return self.top(1)[0].name

    @property
    def score(self) -> float:
        """The probability of the most probable class."""
        return self.top(1)[0].score

    def top(self, count: int = 5) -> list[Guess]:
        """The most probable classes, best first; equal ones in label order."""
        order = np.argsort(-self.probabilities, kind="stable")[:count].tolist()
        return [Guess(self.classes[label], float(self.probabilities[label])) for label in order]

    def __repr__(self) -> str:
        return f"Classification({', '.join(f'{one.name} {one.score:.2f}' for one in self.top(3))})"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier of whole images that `make-db` and `train-cls db.train=DB` made.

    A photo becomes the network's input as a stored image does: resized as `make-db` did, then the centre crop.
    """

    network: ImageClassifier
    spec: ImageClassifierSpec
    device: torch.device
    options: ReadOptions

    @classmethod
    def from_run(cls, path: str | PathLike[str], *, device: str = "auto", max_pixels: int = MAX_PIXELS) -> Classifier:
        """Load the classifier of a run folder.

        device: auto, cpu or cuda. max_pixels: limit on height x width of an image file.
        Raises ClassifierError for a folder without a classifier of whole images, TypeError or ValueError that names a
        wrong argument.
        """
        checked("path", str, path)
        checked("device", Device, device)
        checked("max_pixels", int, max_pixels)
        folder = RunFolder(Path(path)).classifier
        network, spec = load_classifier(folder)
        if not isinstance(spec, ImageClassifierSpec) or not isinstance(network, ImageClassifier):
            raise ClassifierError(
                f"{folder}: expected a classifier of whole images, got {kind_in(folder).description}; use "
                "detpipe.Detector for a detector"
            )
        torch_device = resolve_device(Device(device))
        return cls(network.to(torch_device), spec, torch_device, ReadOptions(max_pixels))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in label order, from label 0."""
        return self.spec.classes

    def __call__(self, image: AnyImage) -> Classification:
        """Classify one photo: an (H, W, 3) uint8 RGB array, a PIL image, or a path.

        Raises BrokenImageError for an unreadable file, and ValueError for a photo smaller than the network's crop.
        """
        return next(self.predict_many([self.input_of(image)]))

    def predict_batch(self, images: Sequence[AnyImage]) -> list[Classification]:
        """Classify several photos, in order; no photos give []. Raises as a call."""
        return list(self.predict_many(map(self.input_of, images)))

    def input_of(self, image: AnyImage) -> npt.NDArray[np.uint8]:
        """The network's input from a photo: (height, width, 3) uint8 RGB. Raises as a call."""
        pixels: npt.NDArray[np.uint8]
        if self.spec.grey and isinstance(image, (str, PathLike)):
            pixels = read_grey(image, self.options)  # the decoder's own grey, as in the database
        else:
            pixels = as_image(image, self.options)
            if self.spec.grey:
                pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        spec = self.network.backbone.spec
        try:
            return view_photo(pixels, spec.size, self.spec.view, Resize.parse(self.spec.resize), spec.interpolation)
        except ValueError as error:
            name = image if isinstance(image, (str, PathLike)) else "image"
            raise ValueError(f"{name}: {error}") from error

    def predict_many(self, inputs: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Classification]:
        """The classes of inputs of `input_of`, in order, in batches of BATCH. They are computed in float32."""
        rest = iter(inputs)
        while batch := tuple(itertools.islice(rest, BATCH)):
            with torch.inference_mode():
                logits = self.network(torch.from_numpy(np.stack(batch)).to(self.device)).float()
            for row in logits.softmax(dim=1).cpu().numpy():
                yield Classification(row, self.classes)
